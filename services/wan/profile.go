package wan

import (
	"fmt"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Direction is what happens to the bytes that go one way through a link. The zero value
// passes them on at once.
type Direction struct {
	// Delay is how long a byte is on its way at least: 0 to MaxDelay.
	Delay api.Duration `json:"delay,omitzero"`
	// Jitter is added to Delay, for each chunk between nothing and all of it: 0 to MaxDelay.
	// Chunks of one connection do not overtake each other, so that they bunch up.
	Jitter api.Duration `json:"jitter,omitzero"`
	// Rate is how many bytes a second the direction carries, for all connections together;
	// 0 = any number.
	Rate int64 `json:"rate,omitempty"`
	// Loss is the share of packets (of PacketBytes) that are lost, 0 to 0.9: the connection
	// stands still until they were repeated, once or more.
	Loss float64 `json:"loss,omitempty"`
	// Reset is the share of chunks at which the whole connection is reset, 0 to 1. A chunk is what
	// one read gave, ChunkBytes at most.
	Reset float64 `json:"reset,omitempty"`
	// Blackhole swallows: bytes are taken until the link's buffer is full, and nothing arrives,
	// neither bytes nor the end of a connection, until it is over.
	Blackhole bool `json:"blackhole,omitempty"`
}

// Profile is what a link does. Up is the direction from those who connect to the target, Down
// the one back.
type Profile struct {
	Up   Direction `json:"up"`
	Down Direction `json:"down"`
	// Refuse resets whoever connects; open connections go on (see Link.Cut).
	Refuse bool `json:"refuse,omitempty"`
}

func (p *Profile) direction(up bool) Direction {
	if up {
		return p.Up
	}
	return p.Down
}

// Both returns a profile that does the same in both directions.
func Both(d Direction) Profile { return Profile{Up: d, Down: d} }

// Bounds of a profile.
const (
	MaxDelay    = time.Minute
	MaxLoss     = 0.9
	ChunkBytes  = 16 << 10 // one read
	PacketBytes = 1460
)

// Check returns an *api.Error that names the first field which is out of its range.
func (p Profile) Check() error {
	if err := p.Up.check("up"); err != nil {
		return err
	}
	return p.Down.check("down")
}

func (d Direction) check(way string) error {
	for _, f := range []struct {
		name  string
		value api.Duration
	}{{"delay", d.Delay}, {"jitter", d.Jitter}} {
		if f.value < 0 || f.value.D() > MaxDelay {
			return api.FieldError(way+"."+f.name, fmt.Sprintf("%s.%s %s is out of range", way, f.name, f.value), "use 0s to "+MaxDelay.String())
		}
	}
	switch {
	case d.Rate < 0:
		return api.FieldError(way+".rate", fmt.Sprintf("%s.rate %d is negative", way, d.Rate), "use bytes per second, or 0 for no limit")
	case !(d.Loss >= 0 && d.Loss <= MaxLoss): // not a number is refused too
		return api.FieldError(way+".loss", fmt.Sprintf("%s.loss %v is out of range", way, d.Loss), fmt.Sprintf("use a share of packets, 0 to %v; blackhole loses all", MaxLoss))
	case !(d.Reset >= 0 && d.Reset <= 1):
		return api.FieldError(way+".reset", fmt.Sprintf("%s.reset %v is out of range", way, d.Reset), "use a share of chunks, 0 to 1")
	}
	return nil
}
