package follow

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// node is a region's node as its watch shows it: records, and what changed when.
type node struct {
	version api.Version
	records map[api.InstanceKey]*api.Instance
	changes []api.Frame
}

func newNode(generation uint64) *node {
	return &node{
		version: api.Version{Region: "eu-west", Epoch: api.Epoch{Generation: generation, Nonce: generation}, Revision: 1},
		records: map[api.InstanceKey]*api.Instance{},
	}
}

func (n *node) commit(r *rand.Rand) {
	n.version.Revision += 1 + r.Uint64N(3)
	var frames []api.Frame
	for range r.IntN(4) {
		k := api.InstanceKey{Namespace: []api.Namespace{"default", "shop"}[r.IntN(2)], Service: api.ServiceName(fmt.Sprintf("s%d", r.IntN(4))), ID: api.InstanceID(fmt.Sprintf("i%d", r.IntN(6)))}
		if slices.ContainsFunc(frames, func(f api.Frame) bool { return f.Instance.Key() == k }) {
			continue
		}
		f := api.Frame{Kind: api.FrameChange, Version: n.version, Op: api.OpPut}
		if old := n.records[k]; old != nil && r.IntN(2) == 0 {
			f.Op, f.Instance = api.OpDelete, old
			delete(n.records, k)
		} else {
			f.Instance = &api.Instance{
				Namespace: k.Namespace, Service: k.Service, ID: k.ID, Region: "eu-west", Zone: "a", Address: "10.0.0.1", Port: 1 + r.IntN(9), Weight: 100,
				Status: api.StatusPassing, Revision: n.version.Revision,
			}
			n.records[k] = f.Instance
		}
		frames = append(frames, f)
	}
	for i := range frames {
		frames[i].More = i+1 < len(frames)
	}
	n.changes = append(n.changes, frames...)
}

// watch returns what a watch from a version begins with.
func (n *node) watch(from api.Version, forgot bool) []api.Frame {
	var out []api.Frame
	if !from.IsZero() && from.Epoch == n.version.Epoch && from.Revision <= n.version.Revision && !forgot {
		out = append(out, api.Frame{Kind: api.FrameSynced, Version: from})
		for _, c := range n.changes {
			if c.Version.Revision > from.Revision {
				out = append(out, c)
			}
		}
		return append(out, api.Frame{Kind: api.FrameBookmark, Version: n.version})
	}
	if !from.IsZero() {
		out = append(out, api.Frame{Kind: api.FrameReset, Version: n.version})
	}
	for _, in := range n.records {
		out = append(out, api.Frame{Kind: api.FrameItem, Version: n.version, Instance: in})
	}
	return append(out, api.Frame{Kind: api.FrameSynced, Version: n.version})
}

func (n *node) digest() summary.Digest {
	byService := map[api.ServiceKey][]*api.Instance{}
	for k, in := range n.records {
		byService[k.ServiceKey()] = append(byService[k.ServiceKey()], in)
	}
	var d summary.Digest
	for k, list := range byService {
		_, h := summary.Encode(summary.Build(k, list, 0, "us-east"))
		d = d.Add(h)
	}
	return d
}

type source struct{ *state }

func (s source) Image() origin.Image                                     { return s.img }
func (s source) ChangedSince(after api.Version) ([]api.ServiceKey, bool) { return s.since(after) }

// P4, P6: whatever is cut off, forgotten or told again, the image is the node's at the image's version,
// its version only rises, and what a reader is told has the digest that the node itself would tell.
func TestImageIsTheNodes(t *testing.T) {
	for range 200 {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 1))
		n, s := newNode(1), newState("eu-west")
		at := s.img.version
		told := map[api.Version]summary.Digest{} // by version
		book := origin.NewBook("us-east")
		for range 60 {
			for range r.IntN(5) {
				n.commit(r)
			}
			if r.IntN(15) == 0 {
				n.version.Epoch.Generation++
				n.changes = nil
			}
			told[n.version] = n.digest()
			frames := n.watch(s.open(), r.IntN(4) == 0)
			if r.IntN(3) == 0 {
				frames = frames[:r.IntN(len(frames)+1)] // the stream breaks
			}
			whole := false
			for i := range frames {
				was := s.img.version
				_, w, err := s.step(&frames[i])
				if err != nil {
					t.Fatalf("seed %d: %+v: %v", seed, frames[i], err)
				}
				whole = w
				if o := s.img.version.Compare(at); !at.Epoch.IsZero() && (o == api.Older || o == api.Conflict) {
					t.Fatalf("seed %d: from %s to %s", seed, at, s.img.version)
				}
				at = s.img.version
				if keys, ok := s.since(was); ok && was == at && len(keys) > 0 {
					t.Fatalf("seed %d: %v changed since now", seed, keys)
				}
			}
			if !whole {
				continue
			}
			if want, ok := told[at]; ok && book.Page(source{s}).Digest != want {
				t.Fatalf("seed %d: at %s the digest is another one", seed, at)
			}
			for _, k := range s.img.Services() {
				if list, revision := s.img.Service(k); len(list) == 0 || revision > at.Revision {
					t.Fatalf("seed %d: %s has %d instances of revision %d", seed, k, len(list), revision)
				}
			}
		}
	}
}

// P4: a node that shows an older history, or another one of the same number, is not believed.
func TestImageDoesNotGoBack(t *testing.T) {
	s := newState("eu-west")
	ahead, old := newNode(3), newNode(2)
	ahead.version.Revision = 50
	same := newNode(3)
	same.version.Epoch.Nonce = 99
	behind := newNode(3)
	take := func(frames []api.Frame) (err error) {
		for i := range frames {
			if _, _, err = s.step(&frames[i]); err != nil {
				return err
			}
		}
		return nil
	}
	s.open()
	if err := take(ahead.watch(api.Version{}, false)); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]*node{"of an older epoch": old, "of another history": same, "that is behind": behind} {
		from := s.open()
		var back *behindError
		if err := take(n.watch(from, false)); !errors.As(err, &back) || back.held != ahead.version {
			t.Errorf("a node %s: %v", name, err)
		}
		if s.img.version != ahead.version {
			t.Fatalf("a node %s: we are at %s", name, s.img.version)
		}
	}
	s.open()
	for _, f := range []api.Frame{
		{Kind: api.FrameBookmark, Version: api.Version{Region: "us-east", Epoch: ahead.version.Epoch, Revision: 60}},
		{Kind: api.FrameBookmark, Version: api.Version{Region: "eu-west", Revision: 60}},
		{Kind: api.FrameItem, Version: ahead.version, Instance: &api.Instance{ID: "a"}},
		{Kind: api.FrameChange, Version: ahead.version},
	} {
		if _, _, err := s.step(&f); err == nil {
			t.Errorf("%+v was taken", f)
		}
	}
	if _, _, err := s.step(&api.Frame{Kind: "later", Version: ahead.version}); err != nil {
		t.Errorf("a kind of a newer version: %v", err)
	}
}

// P8: what is remembered for readers that resume is bounded, and forgets whole revisions.
func TestTouchesAreBounded(t *testing.T) {
	s := newState("eu-west")
	s.open()
	v := api.Version{Region: "eu-west", Epoch: api.Epoch{Generation: 1, Nonce: 1}, Revision: 1}
	if _, _, err := s.step(&api.Frame{Kind: api.FrameSynced, Version: v}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for i := range 3 * historySize {
		if i%2 == 0 {
			v.Revision++
		}
		f := api.Frame{Kind: api.FrameChange, Version: v, Op: api.OpPut, More: i%2 == 0, Instance: &api.Instance{
			Namespace: "default", Service: api.ServiceName(fmt.Sprintf("s%d", i%2)), ID: "a", Revision: v.Revision,
		}}
		if _, _, err := s.step(&f); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d changes in %s", 3*historySize, time.Since(began))
	if n := len(s.touches); n > 2*historySize || n < historySize-1 {
		t.Errorf("%d are remembered", n)
	}
	if s.touches[0].revision <= s.floor {
		t.Errorf("the oldest is of %d, the floor is %d", s.touches[0].revision, s.floor)
	}
	at := v
	at.Revision = s.floor
	if keys, ok := s.since(at); !ok || len(keys) != 2 {
		t.Errorf("%v, %v", keys, ok)
	}
	at.Revision--
	if _, ok := s.since(at); ok {
		t.Error("what is forgotten is told")
	}
}

// I7: what the region's watch calls planned is told as planned to other regions, unless the same
// service lost something otherwise since, or how it changed was not seen.
func TestPlannedIsPassedOn(t *testing.T) {
	n, s := newNode(1), newState("eu-west")
	put := func(service string) {
		n.version.Revision++
		for _, id := range []string{"a", "b"} {
			in := &api.Instance{Namespace: "default", Service: api.ServiceName(service), ID: api.InstanceID(id), Region: "eu-west", Address: "10.0.0.1", Port: 1, Status: api.StatusPassing}
			n.records[in.Key()] = in
		}
	}
	put("orders")
	put("users")
	take := func(frames ...api.Frame) {
		t.Helper()
		for i := range frames {
			if _, _, err := s.step(&frames[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.open()
	take(n.watch(api.Version{}, false)...)
	v := s.img.version
	remove := func(service, id string, cause api.Cause) api.Frame {
		n.version.Revision++
		k := api.InstanceKey{Namespace: "default", Service: api.ServiceName(service), ID: api.InstanceID(id)}
		f := api.Frame{Kind: api.FrameChange, Version: n.version, Op: api.OpDelete, Cause: cause, Instance: n.records[k]}
		delete(n.records, k)
		return f
	}
	take(remove("orders", "a", api.CausePlanned), remove("orders", "b", api.CausePlanned), remove("users", "a", api.CausePlanned))
	if p := s.planned(v); len(p) != 2 {
		t.Fatalf("%v", p)
	}
	take(remove("users", "b", api.CauseEvict))
	if p := s.planned(v); len(p) != 1 {
		t.Fatalf("%v", p)
	}
	if p := s.planned(s.img.version); len(p) != 0 {
		t.Fatalf("%v", p)
	}
	put("orders")
	was := s.img.version
	s.open()
	take(n.watch(was, true)...) // the node does not know what it was
	if p := s.planned(was); len(p) != 0 {
		t.Fatalf("%v", p)
	}
}
