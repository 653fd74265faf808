package route

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// bend writes numbers into the drawing that nobody should tell: each ten bytes say where, and which eight
// make the number.
func (d drawing) bend(b []byte) drawing {
	d.v.Regions = slices.Clone(d.v.Regions)
	for i := range d.v.Regions {
		d.v.Regions[i].Endpoints = slices.Clone(d.v.Regions[i].Endpoints)
	}
	d.c.Memory.Shares = slices.Clone(d.c.Memory.Shares)
	for ; len(b) >= 10; b = b[10:] {
		bits := binary.LittleEndian.Uint64(b[2:])
		x, n := math.Float64frombits(bits), int(bits)
		switch b[0] % 24 {
		case 0:
			d.p.MinHealthy = x
		case 1:
			d.p.OverProvisioning = x
		case 2:
			d.p.SpillStart = x
		case 3:
			d.p.SpillStop = x
		case 4:
			d.p.KeepWarm = x
		case 5:
			d.p.StaleLimit = time.Duration(n)
		case 6:
			d.p.FailbackRamp = time.Duration(n)
		case 7:
			d.c.Elapsed = time.Duration(n)
		case 8, 9:
			if k := len(d.c.Memory.Shares); k > 0 {
				d.c.Memory.Shares[int(b[1])%k].Share = x
			}
		default:
			if k := len(d.v.Regions); k > 0 {
				d.v.Regions[int(b[1])%k].bend(b[0]%24, b[1]>>2, x, n)
			}
		}
	}
	return d
}

func (r *RegionView) bend(where, which byte, x float64, n int) {
	switch where {
	case 10:
		r.Load = x
	case 11:
		r.Total = n
	case 12:
		r.Passing = n
	case 13:
		r.Draining = n
	case 14:
		r.Origin.AgeMS = int64(n)
	case 15:
		r.Origin.RTTMS = int64(n)
	case 16:
		r.Origin.Drained = x
	case 17:
		r.Origin.State = api.AgeState([]string{"", "odd"}[n&1])
	default:
		if k := len(r.Endpoints); k > 0 {
			e := &r.Endpoints[int(which)%k]
			switch where {
			case 18, 19, 20:
				e.Weight = n
			case 21, 22:
				e.Capacity = n
			case 23:
				e.Status = api.Status([]string{"", "odd"}[n&1])
			}
		}
	}
}

// odd are the numbers that break arithmetic.
var odd = []uint64{
	0, 1, math.MaxUint64, math.MaxInt64, 1 << 63, 1<<63 + 1, 1 << 62, 1 << 53, 1 << 31, 100, 99,
	math.Float64bits(math.NaN()), math.Float64bits(math.Inf(1)), math.Float64bits(math.Inf(-1)),
	math.Float64bits(math.MaxFloat64), math.Float64bits(-math.MaxFloat64), math.Float64bits(math.SmallestNonzeroFloat64),
	math.Float64bits(-1), math.Float64bits(1e-9), math.Float64bits(100), math.Float64bits(100.5), math.Float64bits(1e18),
}

// oddBytes draws what bends a drawing.
func oddBytes(r *rand.Rand) []byte {
	var b []byte
	for range r.IntN(12) {
		bits := odd[r.IntN(len(odd))]
		if r.IntN(4) == 0 {
			bits = r.Uint64()
		}
		b = append(b, byte(r.IntN(256)), byte(r.IntN(256)))
		b = binary.LittleEndian.AppendUint64(b, bits)
	}
	return b
}

// checkBent holds a bent drawing to the laws, twice more with what it remembers.
func checkBent(t *testing.T, d drawing, bytes []byte) {
	t.Helper()
	d = d.bend(bytes)
	for range 3 {
		checkLaws(t, d)
		dec := d.decide()
		impact := WhatIf(Question{
			View: d.v, Policy: d.p, Caller: d.c, Mask: Mask{Losses: []api.Loss{{Region: "us"}, {Region: "eu", Zone: "a"}}},
			Facts: []Facts{{Load: d.p.SpillStart}}, RTT: map[api.Region]int64{"us": 1, "eu": math.MaxInt64, "ap": math.MinInt64},
		})
		for _, told := range []any{dec.Wire(), dec.Endpoints(0), impact.Row} {
			if _, err := json.Marshal(told); err != nil { // no JSON has what is not a number
				t.Fatalf("%v: %+v", err, told)
			}
		}
		d.c.Memory = dec.Memory
		for _, s := range d.c.Memory.Shares {
			if !(s.Share >= 0 && s.Share <= 1+1e-9) {
				t.Fatalf("%+v", d.c.Memory)
			}
		}
	}
}

// P3, P8: whatever numbers a view, a policy or a memory holds, the laws hold: no share is lost, negative or
// not a number.
func TestOddNumbersBreakNoLaw(t *testing.T) {
	r := seeded(t)
	for range 5_000 {
		d := draw(r).mixed(r)
		if r.IntN(2) == 0 {
			d = d.loaded(r)
		}
		checkBent(t, d, oddBytes(r))
	}
}

func FuzzDecide(f *testing.F) {
	for i := range uint64(8) {
		f.Add(i, i+1, oddBytes(rand.New(rand.NewPCG(i, 2))))
	}
	f.Fuzz(func(t *testing.T, a, b uint64, bytes []byte) {
		r := rand.New(rand.NewPCG(a, b))
		d := draw(r).mixed(r)
		checkLaws(t, d)
		loaded := d.loaded(r)
		checkLaws(t, loaded)
		bytes = bytes[:min(len(bytes), 200)]
		checkBent(t, d, bytes)
		checkBent(t, loaded, bytes)
	})
}
