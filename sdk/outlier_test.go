package nearside

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Who is an outlier among its neighbours, by success rates in percent of so many calls.
func TestOutliers(t *testing.T) {
	few := func(percent float64) record { return record{judgeVolume - 1, int(percent)} }
	of := func(percent float64) record { return record{1000, int(percent * 10)} }
	for name, tc := range map[string]struct {
		list []record
		want []int
	}{
		"one of five":               {[]record{of(100), of(60), of(100), of(100), of(100)}, []int{1}},
		"one of four is too few":    {[]record{of(100), of(60), of(100), of(100)}, nil},
		"too few calls to tell":     {[]record{of(100), few(60), of(100), of(100), of(100), of(100)}, nil},
		"and those do not count":    {[]record{of(100), of(60), of(100), of(100), few(100)}, nil},
		"all are bad":               {[]record{of(60), of(60), of(60), of(60), of(60), of(60)}, nil},
		"half of them are bad":      {[]record{of(60), of(60), of(60), of(100), of(100), of(100)}, nil},
		"three points are nothing":  {[]record{of(97), of(100), of(100), of(100), of(100), of(100)}, nil},
		"eight points are":          {[]record{of(92), of(100), of(100), of(100), of(100), of(100)}, []int{0}},
		"two of ten":                {[]record{of(60), of(60), of(100), of(100), of(100), of(100), of(100), of(100), of(100), of(100)}, []int{0, 1}},
		"an outlier among bad ones": {[]record{of(50), of(50), of(50), of(50), of(50), of(10)}, []int{5}},
		"a good one is no outlier":  {[]record{of(50), of(50), of(50), of(50), of(50), of(100)}, nil},
		"no calls at all":           {make([]record, 8), nil},
	} {
		if got := outliers(tc.list); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// Whatever is ejected and whatever else is out: ejections never bring a tier's missing above
// half, the best come back first, and none comes back without need.
func TestEjectionsAreBounded(t *testing.T) {
	seeds(t, 500, func(t *testing.T, r *rand.Rand) {
		tier := make([]held, r.IntN(12))
		for i := range tier {
			tier[i] = held{out: r.IntN(4) == 0, ejected: r.IntN(2) == 0, rate: float64(r.IntN(5)) / 5, id: api.InstanceID(fmt.Sprint(i))}
		}
		back := pardoned(tier)
		broken, kept := 0, 0
		worstBack, bestKept := 1.0, 0.0
		for i, m := range tier {
			switch pardon := slices.Contains(back, i); {
			case m.out:
				broken++
			case m.ejected && pardon:
				worstBack = min(worstBack, m.rate)
			case m.ejected:
				kept++
				bestKept = max(bestKept, m.rate)
			case pardon:
				t.Errorf("%d came back, and was not ejected", i)
			}
		}
		half := len(tier) / 2
		if kept > 0 && broken+kept > half {
			t.Errorf("%+v: %d broken and %d ejected of %d", tier, broken, kept, len(tier))
		}
		if len(back) > 0 && (broken+kept < half || bestKept > worstBack) {
			t.Errorf("%+v: %v came back; %d of %d are out", tier, back, broken+kept, len(tier))
		}
	})
}

// P3: an instance that answers a part of its calls with 500 is none for a breaker. Among
// neighbours that do not it is left out for half a minute, for longer the next time, and
// calls go to it again when it is well.
func TestOutliersAreEjectedAndComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		programs := map[string]*program{}
		for i := range 6 {
			id := fmt.Sprint("o", i)
			programs[id] = w.run("us", "orders", id)
		}
		calls := 0
		programs["o3"].handle = func(rw http.ResponseWriter, _ *http.Request) {
			if calls++; calls%3 == 0 {
				rw.WriteHeader(http.StatusInternalServerError)
			}
		}
		c := w.client("us", nil)
		web := w.web(c)
		second := func(call func() string) (got map[string]int) { // 70 calls, and who got them
			got = map[string]int{}
			for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Second / 70) {
				got[call()]++
			}
			return got
		}
		through := func() string {
			_, id, _, err := get(t, web, "http://orders/")
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		for range judgeEvery/time.Second + 2 {
			second(through)
		}
		if n := second(through)["o3"]; n > 0 {
			t.Errorf("it answers a third of its calls with 500, and got %d more", n)
		}
		if a := answerOf(t, c, "orders"); a.decision.Tiers[0].Usable != 5 {
			t.Errorf("a decision counts it as lost: %+v", a.decision.Tiers)
		}
		// From here on by Pick, which is quicker to test.
		sick, n := true, 0
		pick := func() string {
			p, err := c.Pick(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			var failed error
			if sick && p.Endpoint.ID == "o3" {
				if n++; n%3 == 0 {
					failed = errors.New("broken")
				}
			}
			p.Done(failed)
			return string(p.Endpoint.ID)
		}
		// timeline says in which seconds it got calls: # is one with, . without.
		timeline := func(seconds int) string {
			var b strings.Builder
			for range seconds {
				if second(pick)["o3"] > 0 {
					b.WriteByte('#')
				} else {
					b.WriteByte('.')
				}
			}
			return b.String()
		}
		// Half a minute in all, up to two windows until it is judged again, then twice as long.
		if got := timeline(110); !regexp.MustCompile(`^\.{25,30}#{9,21}\.{56,62}#+\.*$`).MatchString(got) {
			t.Error(got)
		}
		sick = false
		timeline(100) // judged once more by what was
		if got := timeline(30); strings.Contains(got, ".") {
			t.Errorf("well again, and left out: %s", got)
		}
	})
}

// Where all fail nobody is ejected; nor where that is not wished, or cannot be told.
func TestNobodyIsEjectedForWhatAllDo(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"all":             nil,
		"not asked for":   func(cfg *Config) { cfg.NoEjection = true },
		"consistent hash": func(cfg *Config) { cfg.Balancer = ConsistentHash{} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				for i := range 6 {
					p := w.run("us", "orders", fmt.Sprint("o", i))
					if i == 0 || change == nil {
						p.set(func(p *program) { p.status = http.StatusInternalServerError })
					}
				}
				c := w.client("us", change)
				web := w.web(c)
				for range 1300 {
					if _, _, _, err := get(t, web, "http://orders/"); err != nil {
						t.Fatal(err)
					}
					time.Sleep(10 * time.Millisecond)
				}
				if a := answerOf(t, c, "orders"); a.decision.Tiers[0].Usable != 6 {
					t.Errorf("%+v", a.decision.Tiers)
				}
			})
		})
	}
}

// When breakers open besides, ejected instances come back in that moment: ejections and breakers
// together leave half of the tier, breakers by themselves may leave nothing.
func TestEjectedComeBackWhenBreakersOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		for i := range 6 {
			w.regions["us"].put("orders", fmt.Sprint("o", i), fmt.Sprint("o", i, ":80"), nil)
		}
		c := w.client("us", nil)
		pickedBy(t, c, 6)
		s, _ := c.service("orders")
		s.mu.Lock()
		for _, in := range s.instances {
			if in.ref.ID <= "o1" {
				in.ejection.until, in.ejection.rate = c.clock()+time.Hour, 0.5
			}
		}
		s.decideLocked()
		s.mu.Unlock()
		left := func() (n int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, in := range answerOf(t, c, "orders").serving[0].picks {
				if in.in.ejection.until != 0 {
					t.Errorf("%s is ejected, and serves", in.in.ref.ID)
				}
				n++
			}
			return n
		}
		if n := left(); n != 4 {
			t.Fatalf("%d left", n)
		}
		want := []int{3, 3, 3, 2} // of six; ejected besides the broken: 2, 1, 0, 0
		for k := range 4 {
			s.mu.Lock()
			for _, in := range s.instances {
				if in.ref.ID == api.InstanceID(fmt.Sprint("o", 2+k)) {
					in.lease.Load().report(outcomeDown)
				}
			}
			s.mu.Unlock()
			synctest.Wait()
			if n := left(); n != want[k] {
				t.Errorf("%d broken: %d serve, want %d", k+1, n, want[k])
			}
		}
	})
}
