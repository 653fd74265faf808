package storm

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// rules is what every call is held to, and the record of it.
type rules struct {
	mu       sync.Mutex
	calls    int
	far      int
	refused  int // of a service that is local only, while home had no instance
	failures []string
	breaches map[string]int // of each rule
	broken   []string       // the first of each
	repeated int
	took     map[bool][]time.Duration // in calm weather, and in the storm
	storm    bool
	seen     map[*program]map[api.Region]api.Version
	shares   map[from]*share
	measured map[bool]int // shares, in calm weather and in the storm
	abroad   map[bool]int // those of them that decided for another region, at least in part
	afar     map[bool]int // answers from there
	posts    map[bool]int // answered calls that are safe by their key alone
	worst    float64      // points
	split    split
	lately   map[from][]api.Region
	decided  map[from][]string // the last decisions
}

type from struct {
	p       *program
	service string
}

// split is what became of all calls in the storm that were decided between regions: a storm seldom
// leaves one decision alone for as long as a share takes.
type split struct {
	calls   int
	decided float64 // calls for other regions than the first
	served  int
}

// share is what became of calls in a row that were decided alike.
type share struct {
	weights map[api.Region]float64
	served  map[api.Region]int
	calls   int
	spoilt  bool // an attempt failed: its repeat went elsewhere
}

func newRules() *rules {
	return &rules{
		breaches: map[string]int{}, took: map[bool][]time.Duration{}, seen: map[*program]map[api.Region]api.Version{},
		shares: map[from]*share{}, measured: map[bool]int{}, abroad: map[bool]int{}, afar: map[bool]int{}, posts: map[bool]int{}, lately: map[from][]api.Region{}, decided: map[from][]string{},
	}
}

// weather says whether what follows is part of the storm.
func (r *rules) weather(storm bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.shares { // a share is of one weather
		r.closeLocked(key)
	}
	clear(r.shares)
	r.storm = storm
}

func (r *rules) breachLocked(format string, args ...any) {
	if r.breaches[format]++; r.breaches[format] <= 5 {
		r.broken = append(r.broken, fmt.Sprintf(format, args...))
	}
}

// resolved is called with everything that a program resolved, in order.
func (r *rules) resolved(p *program, s service, res api.Resolution, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.breachLocked("P3: %s resolves %s: %v", p.name, s.name, err)
		return
	}
	key, what := from{p, s.name}, tiers(res)
	if d := r.decided[key]; len(d) == 0 || !strings.HasSuffix(d[len(d)-1], what) {
		r.decided[key] = append(d[max(0, len(d)-20):], time.Now().Format("15:04:05.000 ")+what)
	}
	if res.Decision.Reason == "" || res.Decision.Detail == "" {
		r.breachLocked("P3: %s resolves %s without a reason: %+v", p.name, s.name, res.Decision)
	}
	views := r.seen[p]
	if views == nil {
		views = map[api.Region]api.Version{}
		r.seen[p] = views
	}
	for _, v := range res.Views {
		if last, ok := views[v.Region]; ok && v.Version().Compare(last) == api.Older {
			r.breachLocked("P4: %s sees %s after %s", p.name, v.Version(), last)
		}
		views[v.Region] = v.Version()
	}
	for _, t := range res.Decision.Tiers {
		if !s.may(p.region, t.Region) {
			r.breachLocked("the policy forbids %s to serve %s for %s: %s", t.Region, s.name, p.name, brief(res))
		}
		if !labelled(res, t.Region) {
			r.breachLocked("P3: %s resolves %s to %s, and is not told of what age that is: %+v", p.name, s.name, t.Region, res.Views)
		}
	}
}

// decidedLately returns the last decisions of a program about a service, for the record of a failure.
func (r *rules) decidedLately(p *program, s service) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, d := range r.decided[from{p, s.name}] {
		b.WriteString("\n      " + d)
	}
	return b.String()
}

// labelled reports whether it is said what is known of a region, and how old that is.
func labelled(res api.Resolution, region api.Region) bool {
	return slices.ContainsFunc(res.Views, func(v api.Origin) bool {
		return v.Region == region && !v.Epoch.IsZero() && v.Revision > 0 && v.State != "" && v.AgeMS >= 0
	})
}

func (r *rules) failed(refused bool, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if refused {
		r.refused++
		return
	}
	r.failures = append(r.failures, time.Now().Format("15:04:05.000 ")+what)
}

func (r *rules) answered(p *program, s service, a answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	r.took[r.storm] = append(r.took[r.storm], a.took)
	if a.keyed {
		r.posts[r.storm]++
	}
	if a.attempts > 1 {
		r.repeated++
	}
	if a.region == "" || a.region != a.claimed || a.instance == "" || a.instance != a.label || a.attempts < 1 {
		r.breachLocked("%s was served %s by %s in %s, and the label says %s in %s after %d attempt(s)", p.name, s.name, a.instance, a.region, a.label, a.claimed, a.attempts)
	}
	if !s.may(p.region, a.region) {
		r.breachLocked("the policy forbids %s to serve %s for %s; it did: %s", a.region, s.name, p.name, brief(a.before))
	}
	if a.region != p.region {
		r.far++
		r.afar[r.storm]++
		if (!labelled(a.before, a.region) && !labelled(a.after, a.region)) || a.before.Decision.Reason == "" {
			r.breachLocked("P3: %s was served %s by %s, and could not say why: %+v", p.name, s.name, a.region, a.before)
		}
	}
	key := from{p, s.name}
	r.lately[key] = append(r.lately[key], a.region)
	if n := len(r.lately[key]); n > homeAgain {
		r.lately[key] = r.lately[key][n-homeAgain:]
	}
	r.shareLocked(key, a)
}

const (
	// leastShare is how many calls in a row, decided alike, make a share.
	leastShare = 30
	// tolerance of a share of so many calls, and in it the calls that its ends cut off.
	tolerance, cutOff = 0.05, 2.0
	// stormTolerance is for what chance does to many short decisions, and for the calls that are left out
	// because an attempt failed, which is not as often in one region as in another.
	stormTolerance = 0.15
	// homeAgain calls in a row at the nearest region are home.
	homeAgain = 10
)

// shareLocked compares the shares of regions in calls that were decided alike with what was decided.
func (r *rules) shareLocked(key from, a answer) {
	before, after := weights(a.before), weights(a.after)
	sh := r.shares[key]
	if sh == nil || !maps.Equal(sh.weights, before) || sh.calls >= 10*leastShare {
		r.closeLocked(key)
		sh = &share{weights: before, served: map[api.Region]int{}}
		r.shares[key] = sh
	}
	if !maps.Equal(before, after) {
		return
	}
	if r.storm && a.attempts == 1 {
		r.split.add(key.p.region, before, a.region)
	}
	sh.spoilt = sh.spoilt || a.attempts > 1
	sh.calls++
	sh.served[a.region]++
}

// add counts a call, if it was decided between regions.
func (s *split) add(home api.Region, decided map[api.Region]float64, by api.Region) {
	w, ok := decided[home]
	if !ok || w >= 1 {
		return
	}
	s.calls++
	s.decided += 1 - w
	if by != home {
		s.served++
	}
}

func (r *rules) closeLocked(key from) {
	sh := r.shares[key]
	if sh == nil || sh.calls < leastShare || sh.spoilt {
		return
	}
	r.measured[r.storm]++
	if sh.weights[key.p.region] < 1 {
		r.abroad[r.storm]++
	}
	for _, region := range regions {
		got, want := float64(sh.served[region])/float64(sh.calls), sh.weights[region]
		r.worst = max(r.worst, 100*math.Abs(got-want))
		if math.Abs(got-want) > tolerance+cutOff/float64(sh.calls) {
			r.breachLocked("%s: %s served %.0f %% of %d calls of %s, decided were %.0f %%", key.p.name, region, 100*got, sh.calls, key.service, 100*want)
		}
	}
}

// weights returns the shares of regions in a decision.
func weights(res api.Resolution) map[api.Region]float64 {
	m := map[api.Region]float64{}
	for _, t := range res.Decision.Tiers {
		if t.Weight > 0 {
			m[t.Region] += t.Weight
		}
	}
	return m
}

// home returns nil if everybody's last calls were all served by the nearest region.
func (r *rules) home(programs []*program) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range programs {
		for _, s := range services {
			last, near := r.lately[from{p, s.name}], s.nearest(p.region)
			for _, region := range last {
				if region != near {
					return fmt.Errorf("%s is served %s by %s", p.name, s.name, region)
				}
			}
			if len(last) < homeAgain {
				return fmt.Errorf("%s had %d answers of %s", p.name, len(last), s.name)
			}
		}
	}
	return nil
}

// forget lets home look at what comes from now on.
func (r *rules) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.lately)
}

// verdict fails the test for everything that was wrong, and tells the figures.
func (r *rules) verdict(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.shares {
		r.closeLocked(key)
	}
	spread := func(storm bool) string {
		d := r.took[storm]
		return fmt.Sprintf("p50 %s, p99 %s, slowest %s of %d", cluster.Percentile(d, 0.5).Round(10*time.Microsecond),
			cluster.Percentile(d, 0.99).Round(time.Millisecond), cluster.Percentile(d, 1).Round(time.Millisecond), len(d))
	}
	t.Logf("%d safe calls, %d failed; %d answered from afar, all labelled; %d needed more than one attempt; %d of a local-only service refused while home had nothing",
		r.calls, len(r.failures), r.far, r.repeated, r.refused)
	t.Logf("calm: %s; storm: %s", spread(false), spread(true))
	t.Logf("%d shares measured in calm weather, %d of them with regions abroad, and in the storm %d and %d: at most %.1f points from what was decided; of %d calls in the storm that were decided between regions %d went abroad, decided were %.0f; %d answers from afar in the storm; %d POSTs with a key, %d of them in the storm",
		r.measured[false], r.abroad[false], r.measured[true], r.abroad[true], r.worst, r.split.calls, r.split.served, r.split.decided, r.afar[true], r.posts[false]+r.posts[true], r.posts[true])
	const shown = 20
	if len(r.failures) > 0 {
		t.Errorf("P3: %d of %d safe calls failed:\n%s", len(r.failures), r.calls, strings.Join(r.failures[:min(len(r.failures), shown)], "\n"))
	}
	if len(r.broken) > 0 {
		t.Errorf("rules were broken, so many times each: %v; the first:\n%s", slices.Sorted(maps.Values(r.breaches)), strings.Join(r.broken, "\n"))
	}
	if off := math.Abs(float64(r.split.served)-r.split.decided) / float64(max(r.split.calls, 1)); off > stormTolerance+1/math.Sqrt(float64(max(r.split.calls, 1))) {
		t.Errorf("of %d calls in the storm that were decided between home and other regions %d went abroad, decided were %.0f", r.split.calls, r.split.served, r.split.decided)
	}
	if r.abroad[false] == 0 || r.measured[true] == 0 || r.split.calls == 0 || r.afar[true] == 0 || r.posts[true] == 0 {
		t.Errorf("nothing to judge by: %d shares with regions abroad in calm weather; in the storm %d shares, %d calls decided between regions, %d answers from afar, %d POSTs with a key",
			r.abroad[false], r.measured[true], r.split.calls, r.afar[true], r.posts[true])
	}
}
