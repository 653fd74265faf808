package shop

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/renameio/v2"
)

// openLines opens path for appending lines and returns its size. A last line that a
// killed process left unfinished is ended first, so that it spoils no other.
func openLines(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	size := info.Size()
	if !info.Mode().IsRegular() || size == 0 {
		return f, 0, nil
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, size-1); err == nil && last[0] != '\n' {
		if _, err := f.Write([]byte{'\n'}); err != nil {
			return nil, 0, errors.Join(err, f.Close())
		}
		size++
	}
	return f, size, nil
}

// readToken returns the token in a file, without the white space around it; "" without one.
func readToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", usagef("token file %s is empty", path)
	}
	return token, nil
}

// writeReady publishes the ready file in one step, so that a reader never sees half.
func writeReady(path string, body any) error {
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("ready file %s: %w", path, err)
	}
	return nil
}

// removeReady drops a ready file: one of an earlier run at the start, ours at the end.
func removeReady(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ready file %s: %w", path, err)
	}
	return nil
}
