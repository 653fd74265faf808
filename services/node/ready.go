package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/renameio/v2"

	"github.com/nearside/nearside/sdk/api"
)

// writeReady publishes the ready file in one step, so that a reader never sees half.
func writeReady(path string, r api.ReadyFile) error {
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("ready file %s: %w", path, err)
	}
	return nil
}

// removeReady drops a ready file of an earlier run: until a new one is written this node
// is not ready.
func removeReady(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ready file %s: %w", path, err)
	}
	return nil
}
