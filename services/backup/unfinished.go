package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// building is where the store is made, below the data directory: on its disk, and never
// looked at by a node. Each restore has its own, so two at once cannot mix.
const building = ".restoring-"

// site is a directory in which a restore builds. Its lock says that the restore still runs: the
// kernel drops it when the process ends, however it ends.
type site struct {
	path string
	lock *os.File // the directory itself
}

// newSite makes a directory to build in.
func newSite(dataDir string) (*site, error) {
	for {
		path, err := os.MkdirTemp(dataDir, building+"*")
		if err != nil {
			return nil, err
		}
		// Between the two a Sweep may have taken it for one that was left.
		s, err := openSite(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errHeld) {
			return s, err
		}
	}
}

// ErrHalfDone: a recovery was killed between the two steps in which it puts a new store in the place of the old one,
// on a file system that cannot exchange them at once.
var ErrHalfDone = errors.New("a recovery was cut off in its last step")

// putAside is where the old store is between the two steps.
const putAside = ".swap"

// HalfDone returns ErrHalfDone with the remedy when the store of a data directory is not in its place: whoever began
// there would begin an empty region.
func HalfDone(dataDir string) error {
	store := filepath.Join(dataDir, "etcd")
	if _, err := os.Stat(store + putAside); err != nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(store, "etcd", "member")); err == nil {
		return nil // the step after it was done
	}
	return fmt.Errorf("%w: the records of %s are in %s; move that to %s (if that is there, it is empty and can go), and run nearside region recover again",
		ErrHalfDone, dataDir, store+putAside, store)
}

// errHeld: the process that builds there still runs.
var errHeld = errors.New("held")

// openSite takes the lock of a directory that is there.
func openSite(path string) (*site, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	here, err := f.Stat()
	now, errNow := os.Stat(path)
	if err = errors.Join(err, errNow); err == nil && !os.SameFile(here, now) {
		err = fs.ErrNotExist // removed, and perhaps made again by another restore
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &site{path: path, lock: f}, nil
}

func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errHeld
		default:
			return err
		}
	}
}

// release gives the directory free, wherever it is by now.
func (s *site) release() error { return s.lock.Close() }

// remove deletes the directory and what is in it.
func (s *site) remove() error { return errors.Join(os.RemoveAll(s.path), s.release()) }

// Sweep removes from a data directory what restores left there that were killed, and returns
// the names. One that still runs is left alone; its name comes with ErrBusy. A directory that is
// not there has nothing to sweep.
func Sweep(dataDir string) (swept []string, err error) {
	entries, err := os.ReadDir(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), building) {
			continue
		}
		path := filepath.Join(dataDir, e.Name())
		s, errSite := openSite(path)
		switch {
		case errors.Is(errSite, fs.ErrNotExist):
			continue
		case errors.Is(errSite, errHeld):
			err = errors.Join(err, fmt.Errorf("%w: %s; wait for its end, or choose another --data-dir", ErrBusy, path))
			continue
		case errSite == nil:
			errSite = s.remove()
		}
		if errSite != nil {
			err = errors.Join(err, errSite)
			continue
		}
		swept = append(swept, e.Name())
	}
	return swept, err
}
