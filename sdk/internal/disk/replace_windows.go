package disk

import "os"

// replace writes b beside path and renames it into place. Windows has no rename that is
// certain to survive a power cut; the checksum tells.
func replace(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
