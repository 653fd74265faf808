package wan

import (
	"math"
	"math/rand/v2"
	"time"
)

// The schedule: when does a chunk leave? Pure; the clock and the dice are arguments.

// repeatAfter is how long TCP waits, beside a round trip, before it repeats what was not
// acknowledged (Linux: 200 ms at least); it doubles each time.
const repeatAfter = 200 * time.Millisecond

// maxRepeats bounds how often one chunk is repeated.
const maxRepeats = 6

// luck is what chance says of one chunk: numbers of 0 up to, and without, 1.
type luck struct{ jitter, loss, reset float64 }

func draw(r *rand.Rand) luck { return luck{r.Float64(), r.Float64(), r.Float64()} }

// flight is what becomes of one chunk.
type flight struct {
	leaves  time.Time // when it arrives at the other end
	free    time.Time // when the line takes the next chunk
	repeats int       // how often it was lost
	reset   bool      // the connection breaks instead
}

// send plans the flight of n bytes that came at now. free is when the line, which all connections
// share, has carried what was sent before; last is when the chunk before this one of the same
// connection leaves.
func (d Direction) send(n int, now, free, last time.Time, l luck) flight {
	f := flight{free: now, reset: l.reset < d.Reset}
	if d.Rate > 0 {
		if free.After(now) {
			f.free = free
		}
		f.free = f.free.Add(time.Duration(float64(n) / float64(d.Rate) * float64(time.Second)))
	}
	way := d.Delay.D() + time.Duration(l.jitter*float64(d.Jitter.D()))
	wait := 2*d.Delay.D() + repeatAfter
	for lost := d.lossOf(n); l.loss < lost && f.repeats < maxRepeats; lost *= d.Loss { // again, of the one packet
		f.repeats++
		way += wait
		wait *= 2
	}
	f.leaves = f.free.Add(way)
	if f.leaves.Before(last) {
		f.leaves = last // no overtaking
	}
	return f
}

// lossOf returns the chance that of n bytes at least one packet is lost.
func (d Direction) lossOf(n int) float64 {
	packets := (n + PacketBytes - 1) / PacketBytes
	return 1 - math.Pow(1-d.Loss, float64(packets))
}
