// Package readyfile writes the files that say that a program is ready (--ready-file): whoever
// starts it waits for the file, and reads there where it can be reached. An empty path means
// that no such file is wanted.
package readyfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// Check reports whether a file can be written at path later. A program calls it at its start, when
// a wrong path may still be an end.
func Check(path string) error {
	if path == "" {
		return nil
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is there, and is no file", path)
	}
	probe, err := os.CreateTemp(filepath.Dir(path), ".probe-*")
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return nil // the path is right, and there may be room later
	}
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	probe.Close()
	return os.Remove(probe.Name())
}

// Write publishes body as JSON in one step, so that a reader never sees half.
func Write(path string, body any) error {
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("ready file %s: %w", path, err)
	}
	return nil
}

// Remove drops the file: that of an earlier run at the start, since the program is not ready
// before it wrote a new one; its own at the end. None is fine.
func Remove(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ready file %s: %w", path, err)
	}
	return nil
}
