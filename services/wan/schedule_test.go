package wan

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

const ms = time.Millisecond

func dur(d time.Duration) api.Duration { return api.Duration(d) }

// When a chunk leaves, as a table: the clock and the dice are given.
func TestWhenAChunkLeaves(t *testing.T) {
	t0 := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return t0.Add(d) }
	never := luck{1, 1, 1} // no jitter is added for 0; nothing is lost or reset
	for _, tc := range []struct {
		name         string
		d            Direction
		n            int
		now          time.Duration
		free, last   time.Duration
		luck         luck
		leaves, line time.Duration
		repeats      int
		reset        bool
	}{
		{name: "nothing is done", n: 100, luck: never},
		{name: "a delay", d: Direction{Delay: dur(40 * ms)}, n: 100, luck: never, leaves: 40 * ms},
		{name: "a delay, later", d: Direction{Delay: dur(40 * ms)}, n: 100, now: 7 * ms, luck: never, leaves: 47 * ms, line: 7 * ms},
		{name: "half of the jitter", d: Direction{Delay: dur(40 * ms), Jitter: dur(10 * ms)}, n: 1, luck: luck{0.5, 1, 1}, leaves: 45 * ms},
		{name: "no overtaking", d: Direction{Delay: dur(40 * ms), Jitter: dur(10 * ms)}, n: 1, last: 49 * ms, luck: luck{0, 1, 1}, leaves: 49 * ms},
		{name: "a shorter delay does not overtake", d: Direction{Delay: dur(ms)}, n: 1, last: 40 * ms, luck: never, leaves: 40 * ms},
		{name: "the time on the line", d: Direction{Rate: 1000}, n: 100, luck: never, leaves: 100 * ms, line: 100 * ms},
		{name: "behind others on the line", d: Direction{Rate: 1000}, n: 100, free: 250 * ms, luck: never, leaves: 350 * ms, line: 350 * ms},
		{name: "a line that was idle", d: Direction{Rate: 1000}, n: 100, now: 300 * ms, free: 250 * ms, luck: never, leaves: 400 * ms, line: 400 * ms},
		{name: "rate and delay", d: Direction{Rate: 1000, Delay: dur(40 * ms)}, n: 10, luck: never, leaves: 50 * ms, line: 10 * ms},
		{name: "the end has no length", d: Direction{Rate: 1000, Delay: dur(40 * ms), Loss: 0.9}, n: 0, luck: luck{0, 0, 1}, leaves: 40 * ms},
		{name: "lost once", d: Direction{Delay: dur(40 * ms), Loss: 0.05}, n: 100, luck: luck{0, 0.049, 1}, leaves: 40*ms + 280*ms, repeats: 1},
		{name: "lost twice", d: Direction{Delay: dur(40 * ms), Loss: 0.05}, n: 100, luck: luck{0, 0.0024, 1}, leaves: 40*ms + 280*ms + 560*ms, repeats: 2},
		{name: "not lost", d: Direction{Delay: dur(40 * ms), Loss: 0.05}, n: 100, luck: luck{0, 0.051, 1}, leaves: 40 * ms},
		{name: "one of ten packets lost", d: Direction{Loss: 0.05}, n: 10 * PacketBytes, luck: luck{0, 0.4, 1}, leaves: 200 * ms, repeats: 1},
		{name: "lost for long", d: Direction{Loss: 0.9}, n: 100, luck: luck{0, 0, 1}, leaves: 63 * 200 * ms, repeats: maxRepeats},
		{name: "a loss holds up what follows", d: Direction{Delay: dur(40 * ms), Loss: 0.05}, n: 100, now: ms, last: 320 * ms, luck: luck{0, 0.5, 1}, leaves: 320 * ms, line: ms},
		{name: "a reset", d: Direction{Delay: dur(40 * ms), Reset: 0.1}, n: 100, luck: luck{0, 1, 0.09}, leaves: 40 * ms, reset: true},
		{name: "no reset", d: Direction{Delay: dur(40 * ms), Reset: 0.1}, n: 100, luck: luck{0, 1, 0.11}, leaves: 40 * ms},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := tc.d.send(tc.n, at(tc.now), at(tc.free), at(tc.last), tc.luck)
			if got := f.leaves.Sub(t0); got != tc.leaves {
				t.Errorf("leaves after %s, want %s", got, tc.leaves)
			}
			if got := f.free.Sub(t0); got != tc.line {
				t.Errorf("the line is free after %s, want %s", got, tc.line)
			}
			if f.repeats != tc.repeats || f.reset != tc.reset {
				t.Errorf("%d repeats, reset %v", f.repeats, f.reset)
			}
		})
	}
}

// Whatever the direction does: nothing leaves before it came and went over the line, nothing
// overtakes, and the shares of loss and reset are those asked for.
func TestScheduleLaws(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		d := Direction{
			Delay: dur(time.Duration(r.IntN(300)) * ms), Jitter: dur(time.Duration(r.IntN(50)) * ms),
			Rate: r.Int64N(2) * (1 + r.Int64N(1<<20)), Loss: r.Float64() / 2, Reset: r.Float64(),
		}
		if err := (Profile{Up: d}).Check(); err != nil {
			t.Fatal(err)
		}
		const chunks, n = 2000, 100
		var free, last time.Time
		now := time.Unix(1000, 0)
		lost, reset := 0, 0
		for range chunks {
			now = now.Add(time.Duration(r.IntN(5)) * ms)
			f := d.send(n, now, free, last, draw(r))
			if f.leaves.Before(last) || f.leaves.Before(now.Add(d.Delay.D())) || f.free.Before(now) || f.free.Before(free) && d.Rate > 0 {
				t.Fatalf("%+v: came at %s, leaves at %s after one at %s, line free at %s", d, now, f.leaves, last, f.free)
			}
			free, last = f.free, f.leaves
			if f.repeats > 0 {
				lost++
			}
			if f.reset {
				reset++
			}
		}
		// Five standard deviations: one in some million fails by chance.
		for what, c := range map[string]struct {
			got  int
			want float64
		}{"lost": {lost, d.Loss}, "reset": {reset, d.Reset}} {
			if off := math.Abs(float64(c.got)/chunks - c.want); off > 5*0.5/math.Sqrt(chunks) {
				t.Errorf("%s: %d of %d, asked for a share of %v", what, c.got, chunks, c.want)
			}
		}
	}
}

func TestProfilesOutOfRange(t *testing.T) {
	for says, p := range map[string]Profile{
		"up.delay -1ms":       {Up: Direction{Delay: dur(-ms)}},
		"down.delay 2m0s":     {Down: Direction{Delay: dur(2 * time.Minute)}},
		"down.jitter 1h0m0s":  {Down: Direction{Jitter: dur(time.Hour)}},
		"up.rate -1":          {Up: Direction{Rate: -1}},
		"up.loss 1":           {Up: Direction{Loss: 1}},
		"up.loss NaN":         {Up: Direction{Loss: math.NaN()}},
		"down.reset 1.5":      {Down: Direction{Reset: 1.5}},
		"up.reset -0.1":       {Up: Direction{Reset: -0.1}},
		"":                    {},
		" ":                   Both(Direction{Delay: dur(MaxDelay), Jitter: dur(MaxDelay), Loss: MaxLoss, Reset: 1, Rate: 1 << 40, Blackhole: true}),
		"up.loss 0.900000001": {Up: Direction{Loss: 0.900000001}},
	} {
		err := p.Check()
		if ok := strings.TrimSpace(says) == ""; ok != (err == nil) || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", p, err, says)
		}
	}
}
