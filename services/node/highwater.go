package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/nearside/nearside/sdk/api"
)

// highWater keeps the newest version of the region in DATA-DIR/head, next to etcd's own
// directory: when that alone is put back to an older state, the two disagree at the next
// start, and the region begins a new epoch. It implements registry.HighWater.
type highWater string

func newHighWater(dataDir string) highWater { return highWater(filepath.Join(dataDir, "head")) }

func (h highWater) Load() (api.Version, error) {
	b, err := os.ReadFile(string(h))
	if errors.Is(err, fs.ErrNotExist) {
		return api.Version{}, nil
	}
	if err != nil {
		return api.Version{}, err
	}
	v, err := api.ParseVersion(strings.TrimSpace(string(b)))
	if err != nil {
		return api.Version{}, fmt.Errorf("%s: %w", string(h), err)
	}
	return v, nil
}

func (h highWater) Save(v api.Version) error {
	return renameio.WriteFile(string(h), []byte(v.String()+"\n"), 0o600, renameio.WithTempDir(filepath.Dir(string(h))))
}
