package follow

import (
	"fmt"
	"slices"

	"github.com/nearside/nearside/sdk/api"
)

// historySize is how many touched services are remembered at least for readers that resume, and
// half of what are remembered at most.
const historySize = 16_384

// touch says that a service changed with a revision.
type touch struct {
	revision uint64
	key      api.ServiceKey
}

// loss says that a service lost instances with a revision, and whether that was meant.
type loss struct {
	touch
	meant bool
}

// behindError says that a node shows a version that the image has left behind already.
type behindError struct{ shown, held api.Version }

func (e *behindError) Error() string {
	return fmt.Sprintf("the node stands at %s, and the region was at %s already", e.shown, e.held)
}

// state turns the frames of one watch after the other into images. It is pure.
type state struct {
	region api.Region
	img    *image

	// touches lead from floor to img, oldest first; all are of img's epoch.
	touches []touch
	losses  []loss
	floor   uint64

	// The stream's: what comes before its first synced, or after a reset, is a list, and a change with
	// more is applied with the last of its revision.
	listing bool
	items   map[api.ServiceKey][]*api.Instance
	pending *edit
}

func newState(region api.Region) *state {
	return &state{region: region, img: &image{version: api.Version{Region: region}}}
}

// open begins a stream; from is what it resumes, zero for a list. What an earlier stream left
// unfinished is dropped.
func (s *state) open() (from api.Version) {
	s.pending, s.items, s.listing = nil, nil, false
	if s.img.version.Epoch.IsZero() {
		s.list()
		return api.Version{}
	}
	return s.img.version
}

func (s *state) list() {
	s.listing, s.items, s.pending = true, make(map[api.ServiceKey][]*api.Instance), nil
}

// step takes the next frame. moved tells that services or the epoch changed, and whole that the
// image is all that the node had when it sent the frame. An error ends the stream; the image stays.
func (s *state) step(f *api.Frame) (moved, whole bool, err error) {
	if f.Version.Region != s.region {
		return false, false, fmt.Errorf("a frame is of region %s", api.Quote(string(f.Version.Region)))
	}
	if f.Version.Epoch.IsZero() {
		return false, false, fmt.Errorf("%s without a version", f.Kind)
	}
	switch f.Kind {
	case api.FrameReset:
		s.list()
		return false, false, nil
	case api.FrameItem:
		if !s.listing || f.Instance == nil {
			return false, false, fmt.Errorf("an item outside of a list")
		}
		k := f.Instance.Key().ServiceKey()
		s.items[k] = append(s.items[k], f.Instance)
		return false, false, nil
	case api.FrameSynced:
		if s.listing {
			moved, err = s.replace(f.Version)
			return moved, err == nil, err
		}
		return false, true, s.advance(f.Version)
	case api.FrameBookmark:
		return false, true, s.advance(f.Version)
	case api.FrameChange:
		if err := s.change(f); err != nil || f.More {
			return false, false, err
		}
		return true, true, nil
	}
	return false, false, nil // of a newer version of the program
}

// joins checks that a frame inside a stream follows on.
func (s *state) joins(v api.Version) error {
	switch {
	case s.listing:
		return fmt.Errorf("%s inside a list", v)
	case v.Epoch != s.img.version.Epoch:
		return fmt.Errorf("epoch %s without a reset", v.Epoch)
	case v.Revision < s.img.version.Revision:
		return &behindError{v, s.img.version}
	}
	return nil
}

// advance moves on over revisions that changed no instance.
func (s *state) advance(v api.Version) error {
	if err := s.joins(v); err != nil {
		return err
	}
	if s.pending != nil {
		return fmt.Errorf("half of the changes of a revision")
	}
	if v != s.img.version {
		s.img = &image{version: v, shards: s.img.shards}
	}
	return nil
}

func (s *state) change(f *api.Frame) error {
	if err := s.joins(f.Version); err != nil {
		return err
	}
	if f.Instance == nil || f.Op != api.OpPut && f.Op != api.OpDelete {
		return fmt.Errorf("a change that says nothing")
	}
	if s.pending == nil {
		s.pending = newEdit(s.img)
	} else if s.pending.m.version != f.Version {
		return fmt.Errorf("half of the changes of a revision")
	}
	s.pending.m.version = f.Version
	s.pending.change(f.Op, f.Instance, f.Version.Revision)
	if f.Op == api.OpDelete {
		// A change that is cut off comes again: it is then said twice, which is no harm.
		l := loss{touch{f.Version.Revision, f.Instance.Key().ServiceKey()}, f.Cause == api.CausePlanned}
		if n := len(s.losses); n == 0 || s.losses[n-1] != l {
			s.losses = append(s.losses, l)
		}
	}
	if !f.More {
		s.publish(s.pending)
	}
	return nil
}

// replace makes what was listed the image.
func (s *state) replace(v api.Version) (moved bool, err error) {
	held := s.img.version
	if !held.Epoch.IsZero() {
		if o := v.Compare(held); o == api.Older || o == api.Conflict {
			return false, &behindError{v, held}
		}
	}
	e := newEdit(s.img)
	e.replace(s.items, v)
	e.m.version = v
	s.listing, s.items = false, nil
	if held.Epoch != v.Epoch {
		s.img, s.touches, s.losses, s.floor, s.pending = e.m, nil, nil, v.Revision, nil
		return true, nil
	}
	for k := range e.keys { // how they came to change is not told
		s.losses = append(s.losses, loss{touch{v.Revision, k}, false})
	}
	s.publish(e)
	return len(e.keys) > 0, nil
}

// publish makes what e built the image, within one epoch.
func (s *state) publish(e *edit) {
	s.img, s.pending = e.m, nil
	for k := range e.keys {
		s.touches = append(s.touches, touch{s.img.version.Revision, k})
	}
	if over := len(s.touches) - historySize; over > historySize {
		// Seldom, for it moves the rest; and whole revisions only.
		s.floor = s.touches[over-1].revision
		for over < len(s.touches) && s.touches[over].revision == s.floor {
			over++
		}
		s.touches = slices.Delete(s.touches, 0, over)
		s.losses = slices.DeleteFunc(s.losses, func(l loss) bool { return l.revision <= s.floor })
	}
}

// since returns the services touched after a version, sorted; ok is false when that is not known.
func (s *state) since(after api.Version) (keys []api.ServiceKey, ok bool) {
	v := s.img.version
	if after.Region != v.Region || after.Epoch != v.Epoch || v.Epoch.IsZero() || after.Revision < s.floor {
		return nil, false
	}
	at, _ := slices.BinarySearchFunc(s.touches, after.Revision+1, func(t touch, r uint64) int {
		if t.revision < r {
			return -1
		}
		return 1
	})
	for _, t := range s.touches[at:] {
		keys = append(keys, t.key)
	}
	slices.SortFunc(keys, compareKeys)
	return slices.Compact(keys), true
}

// planned returns the services that lost instances after a version, all of them because an
// operator said so; none when that is not known.
func (s *state) planned(after api.Version) map[api.ServiceKey]struct{} {
	v := s.img.version
	if after.Region != v.Region || after.Epoch != v.Epoch || v.Epoch.IsZero() || after.Revision < s.floor {
		return nil
	}
	out, others := map[api.ServiceKey]struct{}{}, map[api.ServiceKey]struct{}{}
	for _, l := range s.losses {
		switch {
		case l.revision <= after.Revision:
		case l.meant:
			out[l.key] = struct{}{}
		default:
			others[l.key] = struct{}{}
		}
	}
	for k := range others {
		delete(out, k)
	}
	return out
}
