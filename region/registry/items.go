package registry

import (
	"sync"

	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/sdk/api"
)

// itemFrames are the places of what watches are told at one version: the items of a service, when
// many watches begin at once, and the bookmark. They are of the newest version that was
// asked for; the bytes in them are bounded by whoever encodes.
type itemFrames struct {
	mu      sync.Mutex
	version api.Version
	items   map[api.ServiceKey][]encoded.Frame
	marks   map[api.FrameKind]*encoded.Frame
}

// of returns the places of the n items of a service at a version; nil when it is not the
// newest.
func (f *itemFrames) of(v api.Version, key api.ServiceKey, n int) []encoded.Frame {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.turnTo(v) {
		return nil
	}
	frames := f.items[key]
	if frames == nil {
		frames = make([]encoded.Frame, n)
		f.items[key] = frames
	}
	return frames
}

// mark returns the place of a frame that has nothing but its version.
func (f *itemFrames) mark(v api.Version, kind api.FrameKind) *encoded.Frame {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.turnTo(v) {
		return nil
	}
	if f.marks[kind] == nil {
		f.marks[kind] = new(encoded.Frame)
	}
	return f.marks[kind]
}

func (f *itemFrames) turnTo(v api.Version) bool {
	switch {
	case f.version == v:
	case f.version.Compare(v) == api.Newer:
		return false
	default:
		f.version = v
		f.items, f.marks = map[api.ServiceKey][]encoded.Frame{}, map[api.FrameKind]*encoded.Frame{}
	}
	return true
}
