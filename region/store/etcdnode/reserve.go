package etcdnode

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Reservation is a data directory that this process holds for members which other processes
// run, one after the other. It says where they will be found and watches their disk, also
// while none of them runs. All methods are safe for concurrent use.
type Reservation struct {
	dir     *dataDir
	room    *room
	closing chan struct{}
	once    sync.Once
	watcher sync.WaitGroup
}

// Reserve prepares, checks and locks cfg.DataDir as Start does, with the same errors but for
// ErrCorrupt, and starts nothing. ErrNoSpace is for a directory without data alone: with data it is for the
// members to wait for room. Another process's Reserve gets ErrLocked at once; a Start
// does not.
func Reserve(cfg Config) (*Reservation, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	dir, err := openDir(context.Background(), cfg.DataDir, cfg.Region, ownerLock, 0)
	if err != nil {
		return nil, err
	}
	r := &Reservation{dir: dir, room: newRoom(dir.path, uint64(cfg.ReserveBytes), freeBytes, cfg.Logger), closing: make(chan struct{})}
	r.room.look()
	r.watcher.Go(r.watch)
	return r, nil
}

func (r *Reservation) watch() {
	tick := time.NewTicker(diskInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.room.look()
		case <-r.closing:
			return
		}
	}
}

// Dir returns the absolute path of the directory.
func (r *Reservation) Dir() string { return r.dir.path }

// Endpoint returns the address of every member that runs here, as Node.Endpoint does.
func (r *Reservation) Endpoint() string { return "unix://" + r.dir.socket }

// Room is Node.Room.
func (r *Reservation) Room(grows bool) error { return r.room.ask(grows) }

// Disk returns what was last seen of the disk: the room on it and the reserve, in bytes. known
// is false where the room cannot be told.
func (r *Reservation) Disk() (free, reserve uint64, known bool) {
	s := r.room.seen.Load()
	return s.free, r.room.reserve, s.known
}

// Close gives the directory to the next process. Every member must have ended.
func (r *Reservation) Close() error {
	r.once.Do(func() {
		close(r.closing)
		r.watcher.Wait()
		r.dir.release()
	})
	return nil
}

// Kind is one word for what Start's error is about, to tell it to another process: "locked",
// "not_writable", "no_space", "corrupt", "wrong_region", "not_member", "address", "fatal", or "" for anything else.
// ErrorOf is its inverse.
func Kind(err error) string {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k.name
		}
	}
	return ""
}

// ErrorOf returns the error of that kind, nil for one that is not known.
func ErrorOf(kind string) error {
	for _, k := range kinds {
		if k.name == kind {
			return k.err
		}
	}
	return nil
}
