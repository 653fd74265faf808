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

	"github.com/google/renameio/v2"
)

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
