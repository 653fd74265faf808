package nearside

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/internal/disk"
	"github.com/nearside/nearside/sdk/internal/view"
)

// saveEvery bounds how often the snapshot is written.
const saveEvery = time.Second

// maxKept bounds services that an earlier run used and this one did not ask for yet.
const maxKept = 1024

// snapshots keeps the client's snapshot. A nil *snapshots does nothing.
type snapshots struct {
	c      *Client
	file   *disk.File
	loaded *view.Image // what an earlier run wrote; read-only after load
	dirty  chan struct{}
	warned bool // owned by run
}

func newSnapshots(c *Client) *snapshots {
	name := "nearside"
	for _, part := range []string{c.cfg.App, string(c.cfg.Region)} {
		if part != "" {
			name += "-" + fileSafe(part)
		}
	}
	return &snapshots{c: c, file: disk.New(c.cfg.SnapshotDir, name+".snapshot"), dirty: make(chan struct{}, 1)}
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
	s.loaded = img
	s.c.nodes.setHome(img.Home)
	for _, o := range img.Regions {
		s.c.nodes.learn(o.Region, o.Addresses, o.RTTMS)
	}
}

// service returns the loaded part of a service.
func (s *snapshots) service(key api.ServiceKey) (view.ServiceImage, bool) {
	if s.loaded != nil {
		for _, si := range s.loaded.Services {
			if si.Service == key.Service && si.Namespace == key.Namespace {
				return si, true
			}
		}
	}
	return view.ServiceImage{}, false
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

// run writes changes, at most one a second, and the last one at the end.
func (s *snapshots) run(ctx context.Context) {
	for {
		select {
		case <-s.dirty:
			s.save()
		case <-ctx.Done():
			select {
			case <-s.dirty:
				s.save()
			default:
			}
			return
		}
		sleep(ctx, saveEvery)
	}
}

func (s *snapshots) save() {
	img := s.image(time.Now())
	if len(img.Regions) == 0 {
		return // nothing was ever answered: the file in place knows more
	}
	if err := s.file.Write(&img); err != nil {
		s.c.tel.snapshotFailed(context.Background(), "write")
		if !s.warned {
			s.warned = true
			s.c.log().Warn("snapshot not written; a start without any registry would know no services", "file", s.file.Path(), "error", err)
		}
		return
	}
	s.warned = false
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
	if s.loaded != nil {
		for i, si := range s.loaded.Services {
			if i < maxKept && !have[api.ServiceKey{Namespace: si.Namespace, Service: si.Service}] {
				img.Services = append(img.Services, si)
			}
		}
	}
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
