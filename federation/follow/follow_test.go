package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nearside/nearside/sdk/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// door is a node's API as far as a federation uses it.
type door struct {
	t       *testing.T
	region  api.Region
	name    string
	token   string
	watches chan string      // the query of each watch
	frames  chan []api.Frame // what the open watch sends next; closing the batch nil ends it
	strong  atomic.Value     // api.Version
	raised  chan uint64      // what the epoch is to be above
	url     string
}

func newDoor(t *testing.T, name string) *door {
	t.Helper()
	d := &door{t: t, region: "eu-west", name: name, token: "s3cret-s3cret-s3cret", watches: make(chan string, 9), frames: make(chan []api.Frame), raised: make(chan uint64, 9)}
	srv := httptest.NewServer(d)
	t.Cleanup(srv.Close)
	d.url = srv.URL
	return d
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func(code api.Code, detail string) {
		p := (&api.Error{Code: code, Detail: detail}).Problem("r1")
		w.WriteHeader(p.Status)
		_ = json.NewEncoder(w).Encode(p)
	}
	if r.Header.Get("Authorization") != "Bearer "+d.token {
		refuse(api.CodeUnauthorized, "a token is needed")
		return
	}
	w.Header().Set(api.HeaderNode, d.name)
	switch {
	case r.URL.Path == api.PathRegions:
		_ = json.NewEncoder(w).Encode(api.RegionList{Home: d.region})
	case strings.HasPrefix(r.URL.Path, api.PathRegions+"/") && r.Method == http.MethodGet:
		if asked := strings.TrimPrefix(r.URL.Path, api.PathRegions+"/"); asked != string(d.region) {
			refuse(api.CodeRegionNotFound, "no such region")
			return
		}
		info := api.RegionInfo{Self: true, Nodes: []api.NodeInfo{{Node: "b", Address: "http://b:7400"}, {Node: "a", Address: "http://a:7400"}}}
		info.Drained, info.Addresses = 25, []string{"http://a:7400"}
		_ = json.NewEncoder(w).Encode(info)
	case r.URL.Path == api.PathEpoch(d.region) && r.Method == http.MethodPost:
		var raise api.EpochRaise
		if json.NewDecoder(r.Body).Decode(&raise) != nil {
			refuse(api.CodeInvalidRequest, "what?")
			return
		}
		d.raised <- raise.Above
		_, _ = io.WriteString(w, "{}")
	case r.URL.Path == api.PathServices && r.URL.Query().Get("consistency") == "strong":
		at := d.strong.Load().(api.Version)
		w.Header().Set(api.HeaderEpoch, at.Epoch.String())
		w.Header().Set(api.HeaderRevision, fmt.Sprint(at.Revision))
	case r.URL.Path == api.PathWatch:
		d.watches <- r.URL.RawQuery
		w.WriteHeader(http.StatusOK)
		for {
			_ = http.NewResponseController(w).Flush()
			select {
			case batch := <-d.frames:
				if batch == nil {
					return
				}
				for _, f := range batch {
					b, _ := json.Marshal(f)
					_, _ = fmt.Fprintf(w, "event: %s\nid: x\ndata: %s\n\n", f.Kind, b)
				}
			case <-r.Context().Done():
				return
			}
		}
	default:
		refuse(api.CodeNotFound, r.URL.Path)
	}
}

// run runs a follower until the test ends.
func run(t *testing.T, cfg Config) *Follower {
	t.Helper()
	cfg.Region = "eu-west"
	if cfg.Token == nil {
		cfg.Token = func() (string, error) { return "s3cret-s3cret-s3cret", nil }
	}
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

// reaches waits until the image stands at a version.
func reaches(t *testing.T, f *Follower, v api.Version) {
	t.Helper()
	late := time.After(20 * time.Second)
	for f.Version() != v {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-late:
			t.Fatalf("at %s, not %s: %+v", f.Version(), v, f.Status())
		}
	}
}

func instance(service, id string, revision uint64) *api.Instance {
	return &api.Instance{
		Namespace: "default", Service: api.ServiceName(service), ID: api.InstanceID(id), Region: "eu-west", Address: "10.0.0.1", Port: 80,
		Weight: 100, Status: api.StatusPassing, Revision: revision,
	}
}

// P4, P5, P10: everything is followed, at another node from where the last one left off; what is known
// stays when nobody answers, and says since when; a history that went back is refuted.
func TestFollowsOneNodeAfterTheOther(t *testing.T) {
	a, b := newDoor(t, "a"), newDoor(t, "b")
	f := run(t, Config{URLs: []string{a.url, b.url}})
	v := api.Version{Region: "eu-west", Epoch: api.Epoch{Generation: 3, Nonce: 9}, Revision: 10}
	if q := <-a.watches; q != "bookmark=1s&ns=%2A" {
		t.Errorf("the watch asks for %s", q)
	}
	if f.Status().Loaded || !f.Heard().IsZero() || !f.Version().Epoch.IsZero() {
		t.Errorf("before the first list: %+v", f.Status())
	}
	a.frames <- []api.Frame{
		{Kind: api.FrameItem, Version: v, Instance: instance("orders", "o1", 7)},
		{Kind: api.FrameItem, Version: v, Instance: instance("users", "u1", 9)},
		{Kind: api.FrameSynced, Version: v},
	}
	reaches(t, f, v)
	if s := f.Status(); !s.Connected || s.Node != "a" || f.Len() != 2 || f.Drained() != 25 || !slices.Equal(f.Addresses(), []string{"http://a:7400", "http://b:7400"}) {
		t.Errorf("%+v, %d services, %v", s, f.Len(), f.Addresses())
	}
	// Changes of one revision are one.
	waited := make(chan error, 1)
	go func(at api.Version) { waited <- f.Wait(t.Context(), at) }(v)
	v.Revision = 12
	a.frames <- []api.Frame{{Kind: api.FrameChange, Op: api.OpPut, Version: v, More: true, Instance: instance("orders", "o2", 12)}}
	a.frames <- []api.Frame{{Kind: api.FrameChange, Op: api.OpDelete, Version: v, Instance: instance("users", "u1", 9)}}
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	reaches(t, f, v)
	if list, revision := f.Image().Service(api.ServiceKey{Namespace: "default", Service: "orders"}); len(list) != 2 || revision != 12 || f.Len() != 1 {
		t.Errorf("%d instances of %d, %d services", len(list), revision, f.Len())
	}
	if keys, ok := f.ChangedSince(api.Version{Region: "eu-west", Epoch: v.Epoch, Revision: 10}); !ok || len(keys) != 2 {
		t.Errorf("%v, %v", keys, ok)
	}
	// The node goes; the other one goes on from there.
	heard := f.Heard()
	a.frames <- nil
	if q := <-b.watches; !strings.Contains(q, "from=eu-west%2F3-0000000000000009%2F12") {
		t.Errorf("the watch asks for %s", q)
	}
	if f.Version() != v || f.Heard() != heard || f.Status().Connected {
		t.Errorf("while nobody answers: %s, %+v", f.Version(), f.Status())
	}
	v.Revision = 20
	b.frames <- []api.Frame{{Kind: api.FrameSynced, Version: api.Version{Region: "eu-west", Epoch: v.Epoch, Revision: 12}}, {Kind: api.FrameBookmark, Version: v}}
	reaches(t, f, v)
	if !f.Heard().After(heard) || f.Status().Node != "b" {
		t.Errorf("%+v", f.Status())
	}
	// It shows an older history: a node that is behind is left alone, a store that went back is refuted.
	old := api.Version{Region: "eu-west", Epoch: api.Epoch{Generation: 1, Nonce: 1}, Revision: 2}
	reset := []api.Frame{{Kind: api.FrameReset, Version: old, Reason: "history"}, {Kind: api.FrameSynced, Version: old}}
	a.strong.Store(v)
	b.strong.Store(old)
	b.frames <- reset
	if above := <-b.raised; above != 3 {
		t.Errorf("the epoch is to be above %d", above)
	}
	<-a.watches
	a.frames <- reset
	<-b.watches
	if len(a.raised) > 0 || f.Version() != v {
		t.Errorf("a node that is behind was refuted, or believed: %s", f.Version())
	}
	next := api.Version{Region: "eu-west", Epoch: api.Epoch{Generation: 4, Nonce: 1}, Revision: 3}
	raised := make(chan error, 1)
	go func() { raised <- f.RaiseEpoch(t.Context(), 3) }()
	<-b.raised
	b.frames <- []api.Frame{{Kind: api.FrameReset, Version: next, Reason: "epoch"}, {Kind: api.FrameSynced, Version: next}}
	if err := <-raised; err != nil || f.Version() != next || f.Len() != 0 {
		t.Errorf("%v, at %s", err, f.Version())
	}
}

// A federation that was set up wrongly ends and says so; one that has followed its region once does not.
func TestFollowEndsForWhatNoRetryCures(t *testing.T) {
	d := newDoor(t, "a")
	for want, cfg := range map[error]Config{
		ErrRefused:     {Region: "eu-west", URLs: []string{d.url}},
		ErrOtherRegion: {Region: "us-east", URLs: []string{d.url}, Token: func() (string, error) { return d.token, nil }},
	} {
		f, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Run(t.Context()); !errors.Is(err, want) || !strings.Contains(err.Error(), d.url) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	for _, cfg := range []Config{{Region: "EU", URLs: []string{"http://a:1"}}, {Region: "eu-west"}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

// What a node, or what is taken for one, sends is not trusted to be readable.
func FuzzReadEvents(f *testing.F) {
	f.Add([]byte("event: item\ndata: {}\n\nevent: synced\nid: x\ndata: {\"version\":\"eu-west/1-0000000000000001/2\"}\n\n"))
	f.Add([]byte("data\n\n:\n\nevent"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := newState("eu-west")
		s.open()
		_ = readEvents(strings.NewReader(string(in)), func(kind string, data []byte) error {
			var frame api.Frame
			if err := json.Unmarshal(data, &frame); err != nil {
				return err
			}
			frame.Kind = api.FrameKind(kind)
			was := s.img.version
			_, _, err := s.step(&frame)
			if o := s.img.version.Compare(was); !was.Epoch.IsZero() && (o == api.Older || o == api.Conflict) {
				t.Fatalf("from %s to %s", was, s.img.version)
			}
			return err
		})
	})
}
