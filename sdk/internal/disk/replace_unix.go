//go:build !windows

package disk

import (
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// replace writes b beside path, syncs it, renames it into place, and syncs the directory.
func replace(path string, b []byte) error {
	if err := renameio.WriteFile(path, b, 0o600, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o600)); err != nil {
		return err
	}
	if d, err := os.Open(filepath.Dir(path)); err == nil {
		_ = d.Sync() // some file systems refuse; the file itself is safe already
		_ = d.Close()
	}
	return nil
}
