package shop

import (
	"errors"
	"fmt"
	"os"
	"strings"
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
