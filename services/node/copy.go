package node

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"github.com/nearside/nearside/region/backup"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// maxCopy bounds what is taken from a copy, unpacked: twice what a store holds by default.
const maxCopy = 1 << 30

// diskCopy keeps the region's records in DATA-DIR/records, in the form of a backup, for a
// start while the store is away. It implements registry.Copy.
type diskCopy struct {
	path   string
	region api.Region
	node   string
	room   func(grows bool) error // nil = not known
}

func newDiskCopy(cfg Config, room func(bool) error) *diskCopy {
	return &diskCopy{path: filepath.Join(cfg.DataDir, "records"), region: cfg.Region, node: cfg.Node, room: room}
}

// Load reads the file and checks all of it. None is no error.
func (c *diskCopy) Load() (store.Image, time.Time, error) {
	f, err := os.Open(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return store.Image{}, time.Time{}, nil
	}
	if err != nil {
		return store.Image{}, time.Time{}, err
	}
	defer f.Close()
	var img store.Image
	size := 0
	h, err := backup.Read(f, func(r store.Record) error {
		if size += len(r.Key) + len(r.Value); size > maxCopy {
			return fmt.Errorf("it unpacks to more than %d bytes", maxCopy)
		}
		img.Records = append(img.Records, r)
		return nil
	})
	switch {
	case err != nil:
		return store.Image{}, time.Time{}, fmt.Errorf("%s: %w", c.path, err)
	case h.Region != c.region:
		return store.Image{}, time.Time{}, fmt.Errorf("%s is of region %s, not of %s", c.path, h.Region, c.region)
	case h.Created.IsZero():
		return store.Image{}, time.Time{}, fmt.Errorf("%s: %w: it does not say of when it is", c.path, backup.ErrDamaged)
	}
	img.Epoch, img.Revision = h.Epoch, h.Revision
	return img, h.Created, nil
}

// Save replaces the file in one step, unless the disk has no room to spare: the store needs
// it more.
func (c *diskCopy) Save(img store.Image, confirmed time.Time) error {
	if c.room != nil {
		if err := c.room(true); err != nil {
			return err
		}
	}
	f, err := renameio.NewPendingFile(c.path, renameio.WithTempDir(filepath.Dir(c.path)), renameio.WithPermissions(0o600))
	if err != nil {
		return err
	}
	defer f.Cleanup()
	w := bufio.NewWriterSize(f, 256<<10)
	if err := backup.Write(w, c.region, c.node, confirmed, img); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}
