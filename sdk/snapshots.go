package nearside

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/internal/disk"
	"github.com/nearside/nearside/sdk/internal/view"
)

// Times of the snapshot.
const (
	saveEvery = time.Second // at most; and no more than a twentieth of the time is spent on it
	// saveAgain is when the file is written although nothing changed: that a registry still
	// says the same is what keeps it young.
	saveAgain = 5 * time.Minute
)

// maxKept bounds the services in the snapshot that this run does not watch.
const maxKept = 1024

// snapshots keeps the client's snapshot. A nil *snapshots does nothing.
type snapshots struct {
	c      *Client
	file   *disk.File
	loaded *view.Image // what an earlier run wrote; read-only after load
	dirty  chan struct{}
	warned map[string]bool // by what went wrong; of run, then of finish

	mu sync.Mutex // taken last
	// kept is what is known of services that are not watched: an earlier run used them, or
	// they were let go.
	kept map[api.ServiceKey]view.ServiceImage
}

func newSnapshots(c *Client) *snapshots {
	name := "nearside"
	for _, part := range []string{c.cfg.App, string(c.cfg.Region)} {
		if part != "" {
			name += "-" + fileSafe(part)
		}
	}
	s := &snapshots{
		c: c, file: disk.New(c.cfg.SnapshotDir, name+".snapshot"), dirty: make(chan struct{}, 1),
		warned: map[string]bool{}, kept: map[api.ServiceKey]view.ServiceImage{},
	}
	s.file.Key, s.file.Max = c.cfg.SnapshotKey, c.cfg.SnapshotMaxBytes
	return s
}

// fileSafe keeps a name within one directory.
func fileSafe(s string) string {
	b := []byte(s)
	if len(b) > 100 {
		b = b[:100]
	}
	for i, c := range b {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			b[i] = '_'
		}
	}
	return string(b)
}

// load reads the file. What is wrong with it is a warning: the client starts without.
func (s *snapshots) load() {
	img, err := s.file.Read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.c.tel.snapshotFailed(context.Background(), "read")
		s.c.log().Warn("snapshot not usable", "file", s.file.Path(), "error", err, "previous_used", img != nil)
	}
	if img == nil {
		return
	}
	if home := s.c.cfg.Region; home != "" && img.Home != home {
		s.c.log().Warn("snapshot of another home region not used", "file", s.file.Path(), "region", img.Home)
		return
	}
	age := time.Since(img.SavedAt)
	if limit := s.c.cfg.SnapshotMaxAge; limit > 0 && age > limit {
		s.c.log().Warn("snapshot older than Config.SnapshotMaxAge not used", "file", s.file.Path(), "age", age.Round(time.Second), "limit", limit)
		return
	}
	if age > oldSnapshot {
		s.c.log().Warn("snapshot is old: it is the last resort, when no registry answers", "file", s.file.Path(), "stale_since", img.SavedAt)
	}
	s.loaded = img
	s.c.nodes.setHome(img.Home)
	for _, o := range img.Regions {
		s.c.nodes.learn(o.Region, o.Addresses, o.RTTMS)
	}
	for _, si := range img.Services {
		s.keep(si)
	}
}

// service returns what is known of a service that was not watched so far.
func (s *snapshots) service(key api.ServiceKey) (view.ServiceImage, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	si, ok := s.kept[key]
	return si, ok
}

// keep takes over what is known of a service that is not watched, if there is room.
func (s *snapshots) keep(si view.ServiceImage) {
	if s == nil {
		return
	}
	key := api.ServiceKey{Namespace: si.Namespace, Service: si.Service}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.kept[key]; ok || len(s.kept) < maxKept {
		s.kept[key] = si
	}
}

// touch notes that something changed.
func (s *snapshots) touch() {
	if s == nil {
		return
	}
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// run writes changes, at most one a second. What is left at the end is finish's.
func (s *snapshots) run(ctx context.Context) {
	again := time.NewTicker(saveAgain)
	defer again.Stop()
	for {
		due := true
		select {
		case <-s.dirty:
		case <-again.C:
			due = s.c.answered()
		case <-ctx.Done():
			return
		}
		start := time.Now()
		if due {
			s.save(start)
		}
		sleep(ctx, max(saveEvery, 20*time.Since(start)))
	}
}

// finish writes what was not written yet. Call it when the watchers have ended: a program may close
// its client in the moment of its first answer, before the watcher has noted that there is one.
func (s *snapshots) finish() {
	if s == nil {
		return
	}
	select {
	case <-s.dirty:
		s.save(time.Now())
	default:
	}
}

// answered reports whether a registry answers at the moment, as far as is known.
func (c *Client) answered() bool {
	for _, w := range c.each() {
		w.mu.Lock()
		yes := w.asked == askedNobody && w.book.Heard()
		w.mu.Unlock()
		if yes {
			return true
		}
	}
	return false
}

func (s *snapshots) save(now time.Time) {
	img := s.image(now)
	if len(img.Regions) == 0 {
		return // nothing was ever answered: the file in place knows more
	}
	left, err := s.write(img)
	switch {
	case err != nil:
		s.c.tel.snapshotFailed(context.Background(), "write")
		s.warn("write", "snapshot not written; a start without any registry would know what the file in place tells, if there is one", "error", err)
	case left > 0:
		s.c.tel.snapshotFailed(context.Background(), "limit")
		s.warn("limit", "snapshot is over its limit; services were left out, those that this run does not use and the largest first", "left_out", left, "services", len(img.Services))
	default:
		clear(s.warned)
	}
}

// warn says once what went wrong, until it goes well again.
func (s *snapshots) warn(what, message string, args ...any) {
	if !s.warned[what] {
		s.warned[what] = true
		s.c.log().Warn(message, append([]any{"file", s.file.Path()}, args...)...)
	}
}

// write writes an image, with fewer services when it is over the limit: first without those
// that this run does not watch, then without the largest. It returns how many it left out.
func (s *snapshots) write(img view.Image) (left int, err error) {
	all := len(img.Services)
	for {
		if err = s.file.Write(&img); !errors.Is(err, disk.ErrTooLarge) || len(img.Services) == 0 {
			return all - len(img.Services), err
		}
		img.Services = fewer(img.Services)
	}
}

// fewer returns three quarters of the services: what is not used goes first, then the largest.
func fewer(list []view.ServiceImage) []view.ServiceImage {
	size := func(si view.ServiceImage) (n int) {
		for i := range si.Regions {
			n += 1 + len(si.Regions[i].Endpoints)
		}
		if si.Unused {
			n += 1 << 30
		}
		return n
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b view.ServiceImage) int { return size(a) - size(b) })
	return list[:len(list)*3/4]
}

// image collects what all watchers know, and what an earlier run knew of services that
// this one did not ask for yet.
func (s *snapshots) image(now time.Time) view.Image {
	img := view.Image{Home: s.c.nodes.homeRegion(), SavedAt: now.Round(0)}
	best := map[api.Region]int{}
	have := map[api.ServiceKey]bool{}
	for _, w := range s.c.each() {
		w.mu.Lock()
		part := w.book.Image(now)
		w.mu.Unlock()
		for _, o := range part.Regions {
			i, ok := best[o.Region]
			switch {
			case !ok:
				best[o.Region] = len(img.Regions)
				img.Regions = append(img.Regions, o)
			case o.AgeMS < img.Regions[i].AgeMS:
				img.Regions[i] = o
			}
		}
		for _, si := range part.Services {
			have[api.ServiceKey{Namespace: si.Namespace, Service: si.Service}] = true
		}
		img.Services = append(img.Services, part.Services...)
	}
	s.mu.Lock()
	for key, si := range s.kept {
		if !have[key] {
			si.Unused = true
			img.Services = append(img.Services, si)
		}
	}
	s.mu.Unlock()
	// The nodes of home are what a start most depends on: keep those of the configuration
	// too, in case the next start has none.
	home := api.Origin{Region: img.Home}
	if i, ok := best[img.Home]; ok && len(img.Regions[i].Addresses) == 0 {
		img.Regions[i].Addresses = s.c.nodes.homeNodes()
	} else if !ok && img.Home != "" && len(img.Regions) > 0 {
		home.Addresses = s.c.nodes.homeNodes()
		home.AgeMS = time.Hour.Milliseconds()
		img.Regions = append(img.Regions, home)
	}
	return img
}
