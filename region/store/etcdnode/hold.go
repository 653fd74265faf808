package etcdnode

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// holdPatience is how long a member whose node was killed may take to end.
const holdPatience = 2 * time.Second

// Hold locks a directory against every node, with Start's errors, and starts nothing: for a node whose
// store is elsewhere, and for whoever works on the files. Close gives it back. member
// reports whether a member has ever run there.
func Hold(path string, region api.Region) (held io.Closer, member bool, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, false, notWritable(path, err)
	}
	d := &dataDir{path: abs}
	if err := makePrivate(abs); err != nil {
		return nil, false, notWritable(abs, err)
	}
	// The member's own lock says whether one runs now; it may be that of a node that is no more.
	if err := d.awaitLock(context.Background(), memberLock, holdPatience); err != nil {
		return nil, false, err
	}
	d.release()
	if err := d.awaitLock(context.Background(), ownerLock, 0); err != nil {
		return nil, false, err
	}
	if err := d.checkRegion(region); err != nil {
		d.release()
		return nil, false, err
	}
	return holding{d}, d.hasData(), nil
}

type holding struct{ d *dataDir }

func (h holding) Close() error { h.d.release(); return nil }

// Peers returns who was a member of the cluster when the database in a held directory was last
// written, as "NAME (ADDRESS)"; none when it cannot be told.
func Peers(path string) []string {
	d := &dataDir{path: path}
	if _, err := os.Stat(filepath.Join(d.etcd(), "member", "snap", "db")); err != nil {
		return nil
	}
	var out []string
	for _, m := range d.members() {
		addr := ""
		if len(m.PeerURLs) > 0 {
			addr = m.PeerURLs[0]
		}
		out = append(out, fmt.Sprintf("%s (%s)", m.Name, addr))
	}
	return out
}
