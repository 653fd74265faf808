package sdktest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// watching is one stream of GET /v1/watch. It belongs to one goroutine.
type watching struct {
	r        *Region
	ns       api.Namespace
	services map[api.ServiceKey]bool // nil = all of the namespace
	far      bool
	w        http.ResponseWriter
	rc       *http.ResponseController

	at      api.Version // every change up to here was sent
	ruled   map[api.ServiceKey]*api.Policy
	rows    map[farKey]row
	drained map[api.Region]float64 // as the last synced or bookmark told
	loads   map[api.ServiceKey]int // likewise
}

type farKey struct {
	region api.Region
	key    api.ServiceKey
}

type row struct {
	epoch   api.Epoch
	summary *api.Summary
}

func (r *Region) watch(w http.ResponseWriter, req *http.Request) {
	c := &call{Request: req, r: r, query: []string{"service", "from", "far", "bookmark", "ns"}}
	if err := c.checkQuery("service"); err != nil {
		r.refuse(w, err)
		return
	}
	s, from, every := c.watching(w)
	if c.err != nil {
		r.refuse(w, c.err)
		return
	}
	s.begin()
	if s.list(from) != nil {
		return
	}
	s.follow(req.Context(), every)
}

// watching reads the query of a watch.
func (c *call) watching(w http.ResponseWriter) (s *watching, from api.Version, every time.Duration) {
	s = &watching{
		r: c.r, ns: c.namespace(), far: c.flag("far"), w: w, rc: http.NewResponseController(w),
		ruled: map[api.ServiceKey]*api.Policy{}, rows: map[farKey]row{}, drained: map[api.Region]float64{},
	}
	names := c.URL.Query()["service"]
	if len(names) > api.MaxWatchServices {
		c.check(api.FieldError("service", fmt.Sprintf("%d services in one watch", len(names)), fmt.Sprintf("use at most %d, or none for all of the namespace", api.MaxWatchServices)))
	}
	for _, name := range names {
		c.check(api.CheckServiceName(name))
		if s.services == nil {
			s.services = map[api.ServiceKey]bool{}
		}
		s.services[api.ServiceKey{Namespace: s.ns, Service: api.ServiceName(name)}] = true
	}
	field, text := "from", c.param("from")
	if id := c.Header.Get("Last-Event-ID"); id != "" {
		field, text = "Last-Event-ID", id
	}
	from, err := api.ParseVersion(text)
	if err != nil {
		c.check(api.FieldError(field, fmt.Sprintf("%s %s is not valid", field, api.Quote(text)), "give back the id of a frame, REGION/EPOCH/REVISION, or leave it out"))
	}
	every = api.BookmarkInterval
	if b := c.param("bookmark"); b != "" {
		if every, err = time.ParseDuration(b); err != nil || every < api.MinBookmarkInterval || every > api.BookmarkInterval {
			c.bad("bookmark", fmt.Sprintf("use %s to %s, or leave it out", api.MinBookmarkInterval, api.BookmarkInterval))
		}
	}
	return s, from, every
}

func (s *watching) begin() {
	s.r.stamp(s.w, nil)
	s.w.Header().Set("Content-Type", "text/event-stream")
	s.w.WriteHeader(http.StatusOK)
	_, _ = fmt.Fprint(s.w, "retry: 1000\n\n")
	_ = s.rc.Flush()
}

// list sends everything up to the first synced.
func (s *watching) list(from api.Version) error {
	r := s.r
	r.w.mu.Lock()
	var frames []api.Frame
	if from.IsZero() {
		frames = s.itemsLocked("")
	} else if why := r.gapLocked(from); why != "" {
		frames = s.itemsLocked(why)
	} else {
		s.at = from
	}
	frames = append(frames, s.syncedLocked()...)
	r.w.mu.Unlock()
	return s.send(frames)
}

// gapLocked says why a watch cannot go on from a version; "" = it can.
func (r *Region) gapLocked(from api.Version) string {
	switch {
	case from.Region != r.name:
		return fmt.Sprintf("version %s is of another region", api.Quote(from.String()))
	case from.Epoch != r.epoch:
		return fmt.Sprintf("the region's history began anew: its epoch is %s", r.epoch)
	case from.Revision > r.revision:
		return fmt.Sprintf("revision %d is ahead of this region's history, which is at %d", from.Revision, r.revision)
	case from.Revision < r.forgotten:
		return fmt.Sprintf("the changes after revision %d are no longer remembered", from.Revision)
	}
	return ""
}

// itemsLocked lists everything, after a reset if there is a reason for one.
func (s *watching) itemsLocked(reason string) (frames []api.Frame) {
	r := s.r
	s.at = r.versionLocked()
	if reason != "" {
		frames = append(frames, api.Frame{Kind: api.FrameReset, Version: s.at, Reason: reason})
	}
	for _, key := range sortedKeys(r.rows) {
		if !s.wants(key) {
			continue
		}
		for _, in := range r.instancesLocked(key) {
			frames = append(frames, s.frame(api.FrameItem, key, r.records[in.Key()].in))
		}
	}
	return frames
}

// syncedLocked tells policies and what other regions have, and that this is all.
func (s *watching) syncedLocked() []api.Frame {
	clear(s.ruled)
	clear(s.rows)
	return append(s.newsLocked(), s.markLocked(api.FrameSynced))
}

func (r *Region) versionLocked() api.Version {
	return api.Version{Region: r.name, Epoch: r.epoch, Revision: r.revision}
}

func (s *watching) wants(key api.ServiceKey) bool {
	return key.Namespace == s.ns && (s.services == nil || s.services[key])
}

func (s *watching) frame(kind api.FrameKind, key api.ServiceKey, in *api.Instance) api.Frame {
	f := api.Frame{Kind: kind, Version: s.at, Instance: in, Service: key.Service}
	if key.Namespace != api.DefaultNamespace {
		f.Namespace = key.Namespace
	}
	return f
}

// follow sends what changes until the client leaves.
func (s *watching) follow(ctx context.Context, every time.Duration) {
	bookmarks := time.NewTicker(every)
	defer bookmarks.Stop()
	r, mark := s.r, false
	for {
		r.w.mu.Lock()
		changed := r.w.changed
		frames := append(s.changesLocked(), s.newsLocked()...)
		if mark || s.far && (!maps.Equal(s.drained, drains(s.originsLocked())) || !maps.Equal(s.loads, s.loadsLocked())) {
			frames = append(frames, s.markLocked(api.FrameBookmark))
		}
		r.w.mu.Unlock()
		if s.send(frames) != nil {
			return
		}
		mark = false
		select {
		case <-changed:
		case <-bookmarks.C:
			mark = true
		case <-ctx.Done():
			return
		}
	}
}

// changesLocked returns the changes since the last one sent, or everything anew when they are gone.
func (s *watching) changesLocked() (frames []api.Frame) {
	r := s.r
	if why := r.gapLocked(s.at); why != "" {
		return append(s.itemsLocked(why), s.syncedLocked()...)
	}
	begin, _ := slices.BinarySearchFunc(r.history, s.at.Revision+1, func(c change, rev uint64) int { return cmp.Compare(c.revision, rev) })
	for _, c := range r.history[begin:] {
		if key := c.in.Key().ServiceKey(); s.wants(key) {
			s.at.Revision = c.revision
			f := s.frame(api.FrameChange, key, c.in)
			f.Op, f.Cause = c.op, c.cause
			frames = append(frames, f)
		}
	}
	s.at = r.versionLocked()
	return frames
}

// newsLocked returns what changed of policies and in other regions, by service and region.
func (s *watching) newsLocked() (frames []api.Frame) {
	if !s.far {
		return nil
	}
	r := s.r
	look := map[api.ServiceKey]bool{}
	maps.Copy(look, s.services)
	if s.services == nil {
		for key := range r.policies {
			look[key] = look[key] || s.wants(key)
		}
	}
	for key := range s.ruled {
		look[key] = true
	}
	for _, key := range sortedKeys(look) {
		p, old := r.policyLocked(key), s.ruled[key]
		if (p == nil) == (old == nil) && len(api.Differences(old, p)) == 0 {
			continue
		}
		f := s.frame(api.FramePolicy, key, nil)
		f.Policy = p
		frames = append(frames, f)
		if s.ruled[key] = p; p == nil {
			delete(s.ruled, key)
		}
	}
	origins := r.originsLocked()
	for _, o := range origins {
		keys := map[api.ServiceKey]bool{}
		for key := range r.far[o.Region].rows {
			keys[key] = s.wants(key)
		}
		for k := range s.rows {
			if k.region == o.Region {
				keys[k.key] = true
			}
		}
		for _, key := range sortedKeys(keys) {
			k, now := farKey{o.Region, key}, row{o.Epoch, r.far[o.Region].rows[key]}
			if !keys[key] || s.rows[k].summary == now.summary && (now.summary == nil || s.rows[k].epoch == now.epoch) {
				continue
			}
			f := s.frame(api.FrameReplica, key, nil)
			f.Origin, f.Summary = &o, now.summary
			frames = append(frames, f)
			if s.rows[k] = now; now.summary == nil {
				delete(s.rows, k)
			}
		}
	}
	return frames
}

// originsLocked returns what is known of every other region, and the own one while it is drained.
func (s *watching) originsLocked() []api.Origin {
	origins := s.r.originsLocked()
	if s.r.drainedLocked(s.r.name) > 0 {
		origins = append([]api.Origin{s.r.selfLocked()}, origins...)
	}
	return origins
}

func drains(origins []api.Origin) map[api.Region]float64 {
	m := map[api.Region]float64{}
	for _, o := range origins {
		if o.Drained > 0 {
			m[o.Region] = o.Drained
		}
	}
	return m
}

// markLocked returns a synced or bookmark frame.
func (s *watching) markLocked(kind api.FrameKind) api.Frame {
	f := api.Frame{Kind: kind, Version: s.at, Addresses: []string{s.r.URL()}}
	if s.far {
		f.Origins = s.originsLocked()
		s.drained = drains(f.Origins)
		f.Loads = s.newLoadsLocked(kind == api.FrameSynced)
	}
	return f
}

func (s *watching) send(frames []api.Frame) error {
	for i := range frames {
		f := &frames[i]
		b, err := json.Marshal(f)
		if err != nil {
			return err
		}
		id := ""
		switch f.Kind {
		case api.FrameSynced, api.FrameBookmark, api.FrameChange:
			id = "id: " + f.Version.String() + "\n"
		}
		if _, err := fmt.Fprintf(s.w, "%sevent: %s\ndata: %s\n\n", id, f.Kind, b); err != nil {
			return err
		}
	}
	if len(frames) == 0 {
		return nil
	}
	return s.rc.Flush()
}

func sortedKeys[V any](m map[api.ServiceKey]V) []api.ServiceKey {
	return slices.SortedFunc(maps.Keys(m), func(a, b api.ServiceKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service))
	})
}
