package etcdnode

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// Errors of a data directory; Start wraps them with the directory and the remedy.
var (
	// ErrLocked: another process runs on the data directory.
	ErrLocked = errors.New("data directory in use")
	// ErrNotWritable: the data directory cannot be made, read or written.
	ErrNotWritable = errors.New("data directory not usable")
	// ErrNoSpace: the disk has too little room to start.
	ErrNoSpace = errors.New("too little disk space")
	// ErrCorrupt: the files in the data directory are damaged.
	ErrCorrupt = errors.New("the store's files are damaged")
)

// Room that must be free to start. etcd preallocates two log segments of 64 MB at the
// first start and keeps one ahead later; without room it ends the process in mid-work.
const (
	spaceNew = 200 << 20
	spaceOld = 80 << 20
)

// maxSocketPath is the longest path of a unix socket that works everywhere: Linux takes
// 108 bytes with the final zero, the BSDs 104.
const maxSocketPath = 103

// dataDir is a prepared and locked data directory:
//
//	DIR/lock     held with flock while a member runs here; names its process
//	DIR/owner    held with flock by the process that starts members here, if it is another one
//	DIR/region   the region the data belongs to
//	DIR/etcd/    etcd's own files
//	DIR/run/     the client socket, unless its path would be too long
type dataDir struct {
	path   string // absolute
	lock   *os.File
	socket string // absolute path of the client socket
}

// Names of the lock files.
const (
	memberLock = "lock"
	ownerLock  = "owner"
)

// lockLook is how often a lock that somebody else holds is tried again.
const lockLook = 20 * time.Millisecond

func (d *dataDir) etcd() string { return filepath.Join(d.path, "etcd") }

// openDir makes, locks and checks the directory for region. The order matters: nothing is
// read or written before the lock of that name is held. It is waited for until ctx ends, and
// patience at most.
func openDir(ctx context.Context, path string, region api.Region, lock string, patience time.Duration) (_ *dataDir, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, notWritable(path, err)
	}
	d := &dataDir{path: abs}
	if err := makePrivate(abs); err != nil {
		return nil, notWritable(abs, err)
	}
	if err := d.awaitLock(ctx, lock, patience); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.release()
		}
	}()
	// Who waits for its members waits for room too, once there is something that is worth it.
	if err := d.checkSpace(freeBytes); err != nil && (lock == memberLock || !d.hasData()) {
		return nil, err
	}
	if err := d.checkRegion(region); err != nil {
		return nil, err
	}
	for _, sub := range []string{d.etcd(), filepath.Join(d.path, "run")} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, notWritable(abs, err)
		}
		// These are ours alone, whoever made them.
		if err := os.Chmod(sub, 0o700); err != nil {
			return nil, notWritable(abs, err)
		}
	}
	if err := d.placeSocket(os.TempDir()); err != nil {
		return nil, err
	}
	return d, nil
}

// makePrivate makes path with mode 0700. One that exists is tightened only while it is
// empty: a directory with other things in it (somebody passed /tmp) keeps its mode, and the
// private parts below it are guarded by their own.
func makePrivate(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return nil
	}
	return os.Chmod(path, 0o700)
}

func (d *dataDir) awaitLock(ctx context.Context, lock string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := d.takeLock(lock)
		if !errors.Is(err, ErrLocked) {
			return err
		}
		t := time.NewTimer(lockLook)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}

func (d *dataDir) takeLock(lock string) error {
	name := filepath.Join(d.path, lock)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return notWritable(d.path, err)
	}
	switch err := flock(f); {
	case errors.Is(err, errHeld):
		holder := "another process"
		// Only told, never trusted: the lock itself is the kernel's.
		if b, err := os.ReadFile(name); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				holder = fmt.Sprintf("process %d", pid)
			}
		}
		_ = f.Close()
		return fmt.Errorf("%w: %s is used by %s; stop it, or choose another --data-dir", ErrLocked, d.path, holder)
	case err != nil:
		_ = f.Close()
		return fmt.Errorf("%w: %s cannot be locked (%v); put it on a local disk with --data-dir", ErrNotWritable, d.path, err)
	}
	d.lock = f
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil && !errors.Is(err, syscall.ENOSPC) { // on a full disk nobody is told the number
		d.release()
		return notWritable(d.path, err)
	}
	return nil
}

// release gives the directory to the next process. The lock file stays: removing it would
// let two processes lock two files of the same name.
func (d *dataDir) release() {
	if d.lock != nil {
		_ = d.lock.Close()
		d.lock = nil
	}
}

func (d *dataDir) checkSpace(free func(string) (uint64, bool)) error {
	need := uint64(spaceNew)
	if _, err := os.Stat(filepath.Join(d.etcd(), "member")); err == nil {
		need = spaceOld
	}
	if have, ok := free(d.path); ok && have < need {
		return fmt.Errorf("%w: %s has %d MB free and needs %d MB to start; free some, or choose another --data-dir",
			ErrNoSpace, d.path, have>>20, need>>20)
	}
	return nil
}

// checkRegion compares the stamp, or writes it at the first start. The store carries the
// same stamp inside; this one lets a mistake be told before etcd touches anything.
func (d *dataDir) checkRegion(region api.Region) error {
	name := filepath.Join(d.path, "region")
	b, err := os.ReadFile(name)
	switch {
	case err == nil && len(bytes.TrimSpace(b)) > 0:
		if got := string(bytes.TrimSpace(b)); got != string(region) {
			return fmt.Errorf("%w: %s holds region %s, and this node is of region %s; start it with --region %s, or choose another --data-dir",
				store.ErrWrongRegion, d.path, api.Quote(got), api.Quote(string(region)), got)
		}
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return notWritable(d.path, err)
	}
	// An empty stamp is what a crash between creating and writing could leave; the rename
	// keeps that from happening, and reading it as "none" keeps it from mattering.
	tmp := name + ".new"
	if err := writeSynced(tmp, string(region)+"\n"); err != nil {
		return notWritable(d.path, err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return notWritable(d.path, err)
	}
	return nil
}

func writeSynced(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// placeSocket chooses where the client socket goes: in the data directory, or, when that
// path is too long for a socket or would need quoting in a URL, in a private directory
// below temp. Its name is made from
// the data directory's, so that a killed process leaves at most one behind, to be used again.
func (d *dataDir) placeSocket(temp string) error {
	d.socket = filepath.Join(d.path, "run", "etcd.sock")
	if socketPath(d.socket) {
		return nil
	}
	sum := sha256.Sum256([]byte(d.path))
	short := fmt.Sprintf("nearside-%d-%s", os.Getuid(), hex.EncodeToString(sum[:6]))
	for _, base := range []string{temp, "/tmp"} {
		dir := filepath.Join(base, short)
		socket := filepath.Join(dir, "etcd.sock")
		if !socketPath(socket) {
			continue
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			continue
		}
		// Somebody else may have made it first: only a real directory of our own, closed to
		// others, will do.
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 || !ownedByUs(info) {
			continue
		}
		d.socket = socket
		return nil
	}
	return fmt.Errorf("%w: the path of %s is too long or too odd for a unix socket and no private directory can be made below %s; choose a shorter or plainer --data-dir",
		ErrNotWritable, d.path, temp)
}

// socketPath reports whether p fits a socket address and means the same inside a URL.
func socketPath(p string) bool {
	return len(p) <= maxSocketPath && !strings.ContainsFunc(p, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-+", r)
	})
}

// cleanSocket removes what placeSocket made outside the data directory.
func (d *dataDir) cleanSocket() {
	if dir := filepath.Dir(d.socket); dir != filepath.Join(d.path, "run") {
		_ = os.Remove(d.socket)
		_ = os.Remove(dir)
	}
}

func notWritable(dir string, cause error) error {
	return fmt.Errorf("%w: %s: %w; give this user (uid %d) the directory, or choose another --data-dir",
		ErrNotWritable, dir, cause, os.Getuid())
}
