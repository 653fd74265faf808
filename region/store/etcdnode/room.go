package etcdnode

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/region/store"
)

// The disk is looked at every diskInterval, and before a write unless that was done within
// diskFresh: a system call of about a microsecond, and a fast disk fills quickly.
const (
	diskInterval = time.Second
	diskFresh    = 20 * time.Millisecond

	// fileAhead is what the database's file has of the disk beyond its own size.
	fileAhead = 8 << 20
)

// room watches the disk that the member writes to. etcd cannot be refused a write: on a
// full disk it ends. So whoever writes asks first.
//
//	free ≥ reserve     everything goes
//	free < reserve     nothing that grows, until reserve + reserve/8 are free
//	free < reserve/8   nothing at all
//
// What was let through is written to etcd's log at once, and to the database's file up to
// 0.1 s later. The log is allocated ahead by etcd, the file is by [Node.allocate]: so
// a disk that others fill to the last byte in between ends nothing either.
type room struct {
	dir     string
	reserve uint64
	free    func(dir string) (bytes uint64, ok bool)
	log     *slog.Logger
	mu      sync.Mutex               // held by look
	seen    atomic.Pointer[roomSeen] // written by look only
}

type roomSeen struct {
	free  uint64
	known bool
	level roomLevel
	at    time.Time
}

type roomLevel int

const (
	roomEnough roomLevel = iota
	roomLow
	roomNone
)

func newRoom(dir string, reserve uint64, free func(string) (uint64, bool), log *slog.Logger) *room {
	r := &room{dir: dir, reserve: reserve, free: free, log: log}
	r.seen.Store(&roomSeen{})
	return r
}

// back is where everything goes again: a level above reserve, so that one file that
// comes and goes does not make writes come and go.
func (r *room) back() uint64 { return r.reserve + r.reserve/8 }

// look takes notice of how much is free, unless another look is under way.
func (r *room) look() {
	if !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	was := r.seen.Load()
	now := &roomSeen{at: time.Now()}
	now.free, now.known = r.free(r.dir)
	switch {
	case !now.known: // etcd itself will say it
	case now.free < r.reserve/8:
		now.level = roomNone
	case now.free < r.reserve, was.level != roomEnough && now.free < r.back():
		now.level = roomLow
	}
	r.seen.Store(now)
	if now.level == was.level {
		return
	}
	log := r.log.With("dir", r.dir, "free_bytes", now.free, "reserve_bytes", r.reserve)
	switch now.level {
	case roomNone:
		log.Error("the disk is full: the store takes nothing, deletes included; reads and heartbeats go on")
	case roomLow:
		log.Warn("the disk is nearly full: the store takes deletes only; reads and heartbeats go on", "resumes_at_bytes", r.back())
	default:
		log.Info("the disk has room again: the store takes everything")
	}
}

// check returns nil or why a write must not be made now.
func (r *room) check(grows bool) error {
	switch s := r.seen.Load(); {
	case s.level == roomNone && !grows:
		return fmt.Errorf("%w: the disk of %s is full, %d bytes are free; free some of it", store.ErrUnavailable, r.dir, s.free)
	case s.level != roomEnough && grows:
		return fmt.Errorf("%w: the disk of %s has %d bytes (%d MiB) free of the %d MiB that stay in reserve; writes go on above %d MiB, so free some of it",
			store.ErrFull, r.dir, s.free, s.free>>20, r.reserve>>20, r.back()>>20)
	}
	return nil
}

// Room returns nil when the member's disk has room for a write. Else nothing must be written: store.ErrFull for what grows while less than the
// reserve is free, store.ErrUnavailable for everything else when next to nothing is. It
// names the directory and the bytes, returns at once, and is safe for concurrent use.
func (n *Node) Room(grows bool) error { return n.room.ask(grows) }

// ask is check after a look that is no older than diskFresh.
func (r *room) ask(grows bool) error {
	if time.Since(r.seen.Load().at) >= diskFresh {
		r.look()
	}
	return r.check(grows)
}

// watchRoom looks at the disk until the member ends.
func (n *Node) watchRoom() {
	tick := time.NewTicker(diskInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.room.look()
			n.allocate()
		case <-n.closing:
			return
		case <-n.watched:
			return
		}
	}
}

// allocate gives the database's file its blocks before it needs them: bbolt makes it longer
// without allocating any, and etcd does not survive a write for which there are none.
func (n *Node) allocate() {
	if n.room.seen.Load().level != roomEnough {
		return
	}
	// The file is another one after a defragmentation, so it is opened each time.
	if err := allocateAhead(filepath.Join(n.dir.etcd(), "member", "snap", "db"), fileAhead); err != nil {
		n.cfg.Logger.Debug("the database's file is not allocated ahead", "cause", err)
	}
}
