package follow

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// BookmarkInterval is how often the followed node is to say where it stands: the age that
	// peers see of this region rests on it.
	BookmarkInterval = time.Second
	// SilenceLimit is how long a followed node may send nothing.
	SilenceLimit = 3 * time.Second
	// answerLimit bounds one request, and the wait for a watch to begin: a node that is behind what
	// was seen already takes a moment to catch up first.
	answerLimit = 5 * time.Second
	// lookInterval is how often the region's addresses, and whether it is drained, are asked for.
	lookInterval = 2 * time.Second
	// retryMin and retryMax bound the wait when no address works.
	retryMin, retryMax = 100 * time.Millisecond, 1500 * time.Millisecond
)

// Config configures a Follower. Region and URLs are required.
type Config struct {
	Region api.Region
	// URLs are base URLs of the API of this region's nodes, tried in turn.
	URLs []string
	// HTTPClient reaches them; nil makes one that uses no proxy. Its Timeout and CheckRedirect are
	// ignored: the token goes to the addresses that were given, and nowhere else.
	HTTPClient *http.Client
	// Token returns the bearer token; nil or "" sends none. It is called for every request, so it may
	// change.
	Token  func() (string, error)
	Logger *slog.Logger // nil = none
}

// Errors of Run that no retry cures. They are returned only before the first image: a region that
// was followed once is followed again when it is itself again.
var (
	// ErrOtherRegion: a URL leads to another region.
	ErrOtherRegion = errors.New("another region answers")
	// ErrRefused: the region does not let us read.
	ErrRefused = errors.New("the region refuses the federation")
)

// Status says how the region is followed.
type Status struct {
	URL       string    // of the node that is followed, or tried
	Node      string    // its name; "" before it answered
	Connected bool      // its stream lives
	Loaded    bool      // there is an image
	Heard     time.Time // when a node last said that the image is all there is; zero = never
	Since     time.Time // of the last change of Connected
	Err       string    // why it is not connected
}

// Follower follows the region's nodes. It implements peer.Source. Safe for concurrent use.
type Follower struct {
	cfg  Config
	log  *slog.Logger
	http *http.Client

	img       atomic.Pointer[image]
	addresses atomic.Pointer[[]string]
	drained   atomic.Uint64 // bits of a float64

	mu      sync.Mutex
	state   *state
	touched uint64        // revision of the last image in which services changed
	moved   chan struct{} // closed when services or the epoch change
	heard   time.Time
	status  Status
	next    int // index of the URL to try first
}

// New checks cfg. Nothing is asked before Run.
func New(cfg Config) (*Follower, error) {
	if err := api.CheckRegion(string(cfg.Region)); err != nil {
		return nil, err
	}
	if len(cfg.URLs) == 0 {
		return nil, errors.New("following a region needs the URL of one of its nodes")
	}
	f := &Follower{cfg: cfg, log: cfg.Logger, state: newState(cfg.Region), moved: make(chan struct{})}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.http = newHTTP(cfg.HTTPClient)
	f.status.Since = time.Now()
	f.img.Store(f.state.img)
	f.addresses.Store(&[]string{})
	return f, nil
}

// Image implements peer.Source. Its version has no epoch before the region was heard of.
func (f *Follower) Image() peer.Image { return f.img.Load() }

// Version returns where the image stands.
func (f *Follower) Version() api.Version { return f.img.Load().version }

// Len returns the number of services.
func (f *Follower) Len() int {
	n := 0
	for _, s := range f.img.Load().shards {
		n += len(s)
	}
	return n
}

// Addresses returns the base URLs of the region's nodes for clients, as a node last told them.
func (f *Follower) Addresses() []string { return *f.addresses.Load() }

// Drained returns how much less of its traffic the region wishes to get, in percent, as a node last
// told it.
func (f *Follower) Drained() float64 { return math.Float64frombits(f.drained.Load()) }

// Heard returns when a node last said that the image is all that it has; zero = never. The image is
// no younger than that.
func (f *Follower) Heard() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heard
}

// Status returns how the region is followed now.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	s.Heard, s.Loaded = f.heard, !f.state.img.version.Epoch.IsZero()
	return s
}

// ChangedSince implements peer.Source.
func (f *Follower) ChangedSince(after api.Version) ([]api.ServiceKey, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.since(after)
}

// PlannedSince implements origin.Planner.
func (f *Follower) PlannedSince(after api.Version) map[api.ServiceKey]struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.planned(after)
}

// Wait implements peer.Source.
func (f *Follower) Wait(ctx context.Context, after api.Version) error {
	for {
		f.mu.Lock()
		at, touched, moved := f.state.img.version, f.touched, f.moved
		f.mu.Unlock()
		if at.Epoch != after.Epoch || touched > after.Revision {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// RaiseEpoch implements peer.Source: it asks the region's nodes, and waits until the image shows it.
func (f *Follower) RaiseEpoch(ctx context.Context, above uint64) error {
	var err error
	for i := range f.cfg.URLs {
		url := f.cfg.URLs[(f.first()+i)%len(f.cfg.URLs)]
		if err = f.raise(ctx, url, above); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return err
	}
	for {
		at := f.Version()
		if at.Epoch.Generation > above {
			return nil
		}
		if err := f.Wait(ctx, at); err != nil {
			return err
		}
	}
}

func (f *Follower) first() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next
}

// Run follows the region until ctx ends, and returns nil then. Before the first image it returns
// ErrOtherRegion or ErrRefused, wrapped, when that is what a node answers.
func (f *Follower) Run(ctx context.Context) error {
	pause := retryMin
	for ctx.Err() == nil {
		url := f.cfg.URLs[f.first()]
		began := time.Now()
		err := f.session(ctx, url)
		if ctx.Err() != nil {
			break
		}
		if (errors.Is(err, ErrOtherRegion) || errors.Is(err, ErrRefused)) && f.Version().Epoch.IsZero() {
			f.lost(url, err)
			return err
		}
		var behind *behindError
		if errors.As(err, &behind) {
			f.refute(ctx, url, behind.held)
		}
		f.lost(url, err)
		if time.Since(began) > SilenceLimit {
			pause = retryMin
		}
		// One after the other at once; a pause when all were tried.
		if f.first() != 0 {
			continue
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
		}
		pause = min(pause*2, retryMax)
	}
	f.http.CloseIdleConnections()
	return nil
}

// refute raises the region's epoch if its store proves that its history went back: what we, and so
// our readers, hold would be refused from then on by everyone for ever.
func (f *Follower) refute(ctx context.Context, url string, held api.Version) {
	at, err := f.strong(ctx, url)
	if err != nil {
		f.log.Debug("whether the region's history went back is not known", "url", url, "error", err)
		return
	}
	if o := at.Compare(held); o != api.Older && o != api.Conflict {
		return // only this node was behind
	}
	f.log.Warn("the region holds an older history than it told before; raising its epoch", "held", held, "region", at)
	if err := f.raise(ctx, url, held.Epoch.Generation); err != nil {
		f.log.Warn("the region's epoch could not be raised", "error", err)
	}
}

// lost notes that a node is not followed any more, and makes the next one the first.
func (f *Follower) lost(url string, err error) {
	f.mu.Lock()
	was := f.status
	f.status.URL, f.status.Connected, f.status.Err = url, false, err.Error()
	if was.Connected {
		f.status.Since = time.Now()
	}
	f.next = (f.next + 1) % len(f.cfg.URLs)
	f.mu.Unlock()
	level := slog.LevelDebug
	if was.Connected || was.Err == "" {
		level = slog.LevelWarn
	}
	f.log.Log(context.Background(), level, "the region's node is not followed any more; what is known is kept, and ages", "url", url, "error", err)
}

// found notes that a node answers.
func (f *Follower) found(url, node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = max(slices.Index(f.cfg.URLs, url), 0)
	f.status.URL, f.status.Node = url, node
}

// take steps the state by one frame.
func (f *Follower) take(frame *api.Frame, at time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	moved, whole, err := f.state.step(frame)
	if err != nil {
		return err
	}
	f.img.Store(f.state.img)
	if moved {
		f.touched = f.state.img.version.Revision
		close(f.moved)
		f.moved = make(chan struct{})
	}
	if whole {
		f.heard = at
		if !f.status.Connected {
			f.status.Connected, f.status.Since, f.status.Err = true, time.Now(), ""
			f.log.Info("following the region", "url", f.status.URL, "node", f.status.Node, "version", f.state.img.version)
		}
	}
	return nil
}

// note takes what a node says of its region: where clients find it, and what it wishes.
func (f *Follower) note(info *api.RegionInfo) {
	f.drained.Store(math.Float64bits(info.Drained))
	var out []string
	for _, n := range info.Nodes {
		out = append(out, n.Address)
	}
	for _, a := range info.Addresses {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, cmp.Compare)
	out = slices.DeleteFunc(slices.Compact(out), func(a string) bool { return a == "" })
	if !slices.Equal(out, f.Addresses()) {
		f.addresses.Store(&out)
	}
}
