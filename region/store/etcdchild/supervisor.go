package etcdchild

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/region/store/etcdcluster"
	"github.com/nearside/nearside/region/store/etcdnode"
)

const (
	// lockPatience is how long a child waits for that of a node that was killed.
	lockPatience = 10 * time.Second
	// stopPatience is how long a child has to close its member.
	stopPatience = 10 * time.Second
	// killPatience is how long the kernel has to end a child that was killed: not at all while
	// it waits for a frozen disk.
	killPatience = 2 * time.Second
	pulse        = time.Second
	// hung is how many pulses without etcd answering its own upkeep end a child that is alone (one of
	// a cluster may have lost its quorum); more than a
	// defragmentation may take. They are counted, so that a pause of the node is one.
	hung = 180
)

// Config says which member to run, and who hears of it.
type Config struct {
	etcdnode.Config

	// Command runs the child; nil means this program with Verb. For tests.
	Command []string

	// OnChange, when not nil, is called with each new state, one at a time and in order. It must
	// not wait.
	OnChange func(State)
}

// Phase is what the member is about.
type Phase string

// Phases.
const (
	Starting Phase = "starting" // the first start
	Ready    Phase = "ready"
	Away     Phase = "away" // it ended, and is started again when that may help
)

// State is how the member is.
type State struct {
	Phase    Phase
	Since    time.Time
	Cause    string // while away: why it ended, or did not start
	PID      int    // of the child; 0 without one
	Restarts int    // children that were ready before this one
	Waiting  bool   // a child runs, and serves once a quorum of its cluster does
}

// Supervisor owns the child. All methods are safe for concurrent use.
type Supervisor struct {
	cfg     Config
	log     *slog.Logger
	place   *etcdnode.Reservation
	command []string

	state atomic.Pointer[State] // written by supervise only
	space atomic.Pointer[etcdnode.Space]

	fatal   chan error    // buffered 1: the first start failed for good
	ready   chan struct{} // closed when a member served for the first time
	closing chan struct{}
	done    chan struct{} // closed when supervise has ended
	once    sync.Once
	left    error // set before done is closed
}

// Start prepares and locks the data directory, with etcdnode.Start's errors, and begins to run
// members there until Close; it does not wait for the first. Err and Ready tell what becomes of it.
func Start(cfg Config) (*Supervisor, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	command := cfg.Command
	if command == nil {
		path, err := program()
		if err != nil {
			return nil, fmt.Errorf("find this program, to run etcd with it: %w", err)
		}
		command = []string{path, Verb}
	}
	place, err := etcdnode.Reserve(cfg.Config)
	if err != nil {
		return nil, err
	}
	cfg.DataDir = place.Dir()
	s := &Supervisor{
		cfg: cfg, log: cfg.Logger, place: place, command: command, fatal: make(chan error, 1),
		ready: make(chan struct{}), closing: make(chan struct{}), done: make(chan struct{}),
	}
	s.state.Store(&State{Phase: Starting, Since: time.Now()})
	s.space.Store(&etcdnode.Space{})
	go s.supervise()
	return s, nil
}

// Ready is closed when the member serves for the first time.
func (s *Supervisor) Ready() <-chan struct{} { return s.ready }

// Err receives one error if the first start fails in a way that no other would cure: the files
// are damaged, of another region, or not writable, or another program has the peer address. It also does when the
// member is none of its cluster, or no longer. Nothing is tried again then.
func (s *Supervisor) Err() <-chan error { return s.fatal }

// Await returns nil once the member has served for the first time, or Err's or ctx's error.
func (s *Supervisor) Await(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case err := <-s.fatal:
		s.fatal <- err
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Endpoint returns the member's address, "unix:///path/etcd.sock": the same for every child.
func (s *Supervisor) Endpoint() string { return s.place.Endpoint() }

// Room is etcdnode.Node.Room; it works also without a child.
func (s *Supervisor) Room(grows bool) error { return s.place.Room(grows) }

// Space returns what the child last told of its sizes, and the room on the disk as it is.
func (s *Supervisor) Space() etcdnode.Space {
	sp := *s.space.Load()
	sp.DiskFree, sp.DiskReserve, _ = s.place.Disk()
	return sp
}

// State returns how the member is.
func (s *Supervisor) State() State { return *s.state.Load() }

// Trouble returns "" while the member serves, or what is wrong with it.
func (s *Supervisor) Trouble() string {
	st := s.State()
	switch {
	case st.Phase == Ready:
		return ""
	case st.Waiting:
		return "etcd waits for a quorum of the region's nodes"
	case st.Phase == Starting:
		return "etcd is starting"
	}
	return fmt.Sprintf("etcd, the process that keeps the records, is away and is started again as soon as that may help: %s (since %s, %d restarts before)",
		st.Cause, st.Since.UTC().Format(time.RFC3339), st.Restarts)
}

func (s *Supervisor) set(st State) {
	s.state.Store(&st)
	if s.cfg.OnChange != nil {
		s.cfg.OnChange(st)
	}
}

// Close asks the child to end, kills it when it has not after 10 s, and unlocks the directory.
// Close the clients first. The error says that the child could not be ended, as on a frozen disk;
// it is gone as soon as that lets it.
func (s *Supervisor) Close() error {
	s.once.Do(func() { close(s.closing) })
	t := time.NewTimer(stopPatience + killPatience + time.Second)
	defer t.Stop()
	select {
	case <-s.done:
		return s.left
	case <-t.C:
		return fmt.Errorf("etcd's process %d in %s was killed and has not ended: is the disk frozen?", s.State().PID, s.cfg.DataDir)
	}
}

func (s *Supervisor) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// supervise runs one child after the other until Close.
func (s *Supervisor) supervise() {
	// The kernel kills a child when the thread that started it ends: this one, with supervise.
	runtime.LockOSThread()
	defer close(s.done)
	defer s.place.Close()
	failures, restarts, served := 0, 0, false
	for {
		e := s.live(restarts, served)
		if s.isClosing() {
			s.left = e.err
			return
		}
		if e.served > 0 {
			restarts++
		}
		if !served && e.served == 0 && (e.incurable() || errors.Is(e.err, etcdcluster.ErrAddress)) || errors.Is(e.err, etcdcluster.ErrNotMember) {
			s.log.Error("etcd cannot be started", "cause", e.err)
			s.set(State{Phase: Away, Since: time.Now(), Cause: e.err.Error()})
			s.fatal <- e.err
			<-s.closing
			return
		}
		served = served || e.served > 0
		if failures++; e.served >= stable {
			failures = 0
		}
		since := time.Now()
		if st := s.State(); st.Phase == Away {
			since = st.Since
		}
		pause := pauseAfter(e, failures)
		s.set(State{Phase: Away, Since: since, Cause: e.err.Error(), Restarts: restarts})
		s.log.Error("etcd ended; reads, watches and the federation go on from memory, writes are refused", "cause", e.err, "starts_again_in", pause.String())
		if !s.wait(e, pause) {
			return
		}
	}
}

// wait returns true when the next child may start, false on Close.
func (s *Supervisor) wait(e ending, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	told := false
	for {
		select {
		case <-s.closing:
			return false
		case <-t.C:
		}
		free, reserve, known := s.place.Disk()
		if roomFor(e, free, reserve, known) {
			return true
		}
		if !told {
			told = true
			s.log.Warn("etcd waits for room on the disk", "dir", s.cfg.DataDir, "free_bytes", free, "needs_bytes", reserve)
		}
		t.Reset(pulse)
	}
}

// live is the life of one child, from its start until it is reaped.
func (s *Supervisor) live(restarts int, served bool) ending {
	c, err := s.spawn()
	if err != nil {
		return ending{err: err}
	}
	st := s.State()
	st.PID = c.pid()
	s.state.Store(&st)
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	var (
		readyAt, stopBy time.Time // zero = not yet
		last            *failure  // what the child said of its end
		killed          string    // why it was killed by us
		silent          int
		waiting         bool // for others: no limit to that
		looks           uint64
		closing         = s.closing
	)
	kill := func(why string) {
		if killed == "" {
			killed = why
			c.kill()
		}
	}
	limit := s.startLimit()
	for {
		select {
		case m := <-c.reports:
			switch {
			case m.Waiting:
				waiting = true
				st := s.State()
				st.Waiting = true
				s.set(st)
			case m.Ready != nil && m.Ready.Endpoint != s.Endpoint():
				kill(fmt.Sprintf("it listens at %s instead of %s: is somebody else's directory in the way?", m.Ready.Endpoint, s.Endpoint()))
			case m.Ready != nil:
				readyAt, silent = time.Now(), 0
				away := ""
				if was := s.State(); was.Phase == Away {
					away = time.Since(was.Since).Round(time.Millisecond).String()
				}
				s.set(State{Phase: Ready, Since: readyAt, PID: c.pid(), Restarts: restarts})
				if !served {
					close(s.ready)
					s.log.Info("etcd serves", "pid", c.pid(), "took", readyAt.Sub(c.begun).Round(time.Millisecond).String())
				} else {
					s.log.Info("etcd serves again", "pid", c.pid(), "restarts", restarts, "away_for", away)
				}
				served = true
			case m.Space != nil:
				s.space.Store(m.Space)
				if m.Space.Looks != looks {
					looks, silent = m.Space.Looks, 0
				}
			case m.Failed != nil:
				last = m.Failed
			case m.Ended != nil:
				last = m.Ended
			}
		case <-tick.C:
			silent++
			switch {
			case readyAt.IsZero() && !waiting && silent > limit && stopBy.IsZero():
				kill(fmt.Sprintf("it was not ready within %d s", limit))
			case !readyAt.IsZero() && looks > 0 && silent > hung && s.cfg.Cluster == nil:
				kill(fmt.Sprintf("it did not answer its own upkeep for %d s", hung))
			case !stopBy.IsZero() && time.Now().After(stopBy):
				kill("it did not stop within " + stopPatience.String())
			}
		case <-closing:
			closing = nil
			stopBy = time.Now().Add(stopPatience)
			c.stop()
		case <-c.exited:
			e := ending{err: c.cause(last, killed)}
			if !readyAt.IsZero() {
				e.served = max(time.Since(readyAt), 1)
			}
			if !stopBy.IsZero() && killed == "" {
				e.err = nil // as it was asked to
			} else if _, all := c.words.cause(); all != "" {
				s.log.Error("etcd's process left words that are no log", "pid", c.pid(), "output", all)
			}
			return e
		}
	}
}

// startLimit is how many pulses a child has until it is ready; it gives up earlier by itself,
// unless it hangs.
func (s *Supervisor) startLimit() int {
	limit := s.cfg.StartTimeout
	if limit <= 0 {
		limit = 20 * time.Second
	}
	return int((limit + lockPatience + 5*time.Second) / pulse)
}

func logLevel(log *slog.Logger) slog.Level {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if log.Enabled(context.Background(), l) {
			return l
		}
	}
	return slog.LevelError
}
