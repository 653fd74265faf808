package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/region/liveness/check"
	"github.com/nearside/nearside/sdk/api"
)

// clinic is a prober that answers as it is told, by the path of a check and the port of an
// instance.
type clinic struct {
	mu     sync.Mutex
	sick   map[string]string // "8080/ready" or "8080" -> code
	asked  map[string]int
	unable bool
	slow   time.Duration
}

func (p *clinic) Admit(address string, port int) error {
	if address == "169.254.169.254" {
		return errors.New("checks may not reach it")
	}
	return nil
}

func (p *clinic) Probe(ctx context.Context, t check.Target) check.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slow > 0 {
		d := p.slow
		p.mu.Unlock()
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
		p.mu.Lock()
	}
	name := fmt.Sprintf("%d%s", t.Port, t.Path)
	p.asked[name]++
	if p.unable {
		return check.Result{Outcome: check.Unknown}
	}
	for _, k := range []string{name, fmt.Sprint(t.Port), "all"} {
		if code, ok := p.sick[k]; ok {
			return check.Result{Outcome: check.Failure, Code: code}
		}
	}
	return check.Result{Outcome: check.Success, Code: "200"}
}

func (p *clinic) set(name, code string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if code == "" {
		delete(p.sick, name)
	} else {
		p.sick[name] = code
	}
}

func (p *clinic) times(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[name]
}

func newClinic() *clinic { return &clinic{sick: map[string]string{}, asked: map[string]int{}} }

func (p *clinic) prober(c *Config) { c.Prober = p }

var (
	ready   = api.Check{Kind: api.CheckHTTP, Path: "/ready"}
	started = api.Check{Kind: api.CheckHTTP, Path: "/started", Role: api.RoleStartup, Name: "boot"}
	alive   = api.Check{Kind: api.CheckHTTP, Path: "/alive", Role: api.RoleLiveness, Name: "alive", DeregisterAfter: api.Duration(time.Minute)}
)

// admit registers id at a port, with checks and without a heartbeat.
func (b *bed) admit(id string, port int, checks ...api.Check) api.Instance {
	b.t.Helper()
	in, _, err := b.Register(b.t.Context(), ikey("orders", id), api.Registration{Address: "10.0.0.9", Port: port, Checks: checks})
	if err != nil {
		b.t.Fatalf("register %s: %v", id, err)
	}
	return in
}

func (b *bed) status(id string) string {
	b.t.Helper()
	in, _, err := b.Get(b.t.Context(), ikey("orders", id), ReadOptions{})
	if err != nil {
		return string(api.CodeOf(err))
	}
	return strings.TrimSpace(string(in.Status) + " " + in.StatusNote)
}

func (b *bed) want(id, status string) {
	b.t.Helper()
	if got := b.status(id); got != status {
		b.t.Errorf("%s is %q, want %q", id, got, status)
	}
}

func (b *bed) checkInfo() api.ChecksInfo {
	b.t.Helper()
	info, _, err := b.RegionInfo(b.t.Context(), b.cfg.Region)
	if err != nil {
		b.t.Fatal(err)
	}
	return *info.Checks
}

// A page of a list costs what is in it: what the checks last found was looked up, and copied, for every
// instance of the service.
func TestAPageShowsTheChecksOfItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, newClinic().prober)
		const n = 400
		for i := range n {
			b.admit(fmt.Sprintf("i%d", i), 1000+i, ready)
		}
		pass(time.Minute)
		q := InstancesQuery{Service: "orders", Limit: 1}
		list, _, err := b.ListInstances(t.Context(), q)
		if err != nil || len(list.Instances) != 1 || list.Instances[0].CheckResults[0].LastCode != "200" {
			t.Fatalf("%+v, %v", list, err)
		}
		one := testing.AllocsPerRun(10, func() { _, _, _ = b.ListInstances(t.Context(), q) })
		q.Zone = "nowhere"
		none := testing.AllocsPerRun(10, func() { _, _, _ = b.ListInstances(t.Context(), q) })
		if one > 50 || none > n+n/2 {
			t.Errorf("%.0f allocations for one of %d instances, %.0f for none", one, n, none)
		}
	})
}

func TestReadinessDecidesTheStatus(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		b := start(t, p.prober)
		w := b.watch(WatchQuery{Services: []api.ServiceName{"orders"}})
		w.next()
		in := b.admit("a", 1, ready)
		if in.Status != api.StatusStarting || in.TTL != 0 || len(in.CheckResults) != 1 {
			t.Errorf("%+v", in)
		}
		b.want("a", "starting readiness http: has not passed yet")
		pass(time.Second)
		b.want("a", "passing")
		if got := w.next(); got != "put:register a, put:status a" {
			t.Errorf("watch told %q", got)
		}
		p.set("1/ready", "503")
		pass(15 * time.Second)
		b.want("a", "passing")
		got, _, _ := b.Get(t.Context(), ikey("orders", "a"), ReadOptions{})
		if r := got.CheckResults[0]; r.LastCode != "503" || time.Since(r.LastAt) > 11*time.Second || r.Status != api.StatusPassing {
			t.Errorf("the last result does not show: %+v", r)
		}
		since := time.Now()
		pass(20 * time.Second)
		b.want("a", "critical readiness http: 3 × 503")
		got, _, _ = b.Get(t.Context(), ikey("orders", "a"), ReadOptions{})
		if got.StatusSince.Before(since) || got.CheckResults[0].Note != "3 × 503" {
			t.Errorf("%+v", got)
		}
		p.set("1/ready", "")
		pass(11 * time.Second)
		b.want("a", "passing")
		if got := w.next(); got != "put:status a, put:status a" {
			t.Errorf("watch told %q", got)
		}
		// Without a heartbeat it stays for ever.
		pass(time.Hour)
		b.want("a", "passing")
	})
}

func TestStartupGatesTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		p.set("1/started", "503")
		b := start(t, p.prober)
		b.admit("a", 1, ready, started, alive)
		pass(15 * time.Second)
		b.want("a", "starting startup boot: has not passed yet")
		pass(10 * time.Second)
		b.want("a", "critical startup boot: 3 × 503")
		if p.times("1/ready")+p.times("1/alive") != 0 {
			t.Error("the others were asked before the start")
		}
		p.set("1/started", "")
		pass(12 * time.Second)
		b.want("a", "passing")
		n := p.times("1/started")
		pass(time.Minute)
		if p.times("1/started") != n || p.times("1/ready") < 5 || p.times("1/alive") < 5 {
			t.Errorf("asked after the start: %v", p.asked)
		}
	})
}

// P2: a program that dies before its startup check ever passed leaves too, through the brake: its
// liveness checks never ran, and without heartbeats it stayed for ever.
func TestDeregisterAfterAtTheStartup(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		b := start(t, p.prober)
		boot := started
		boot.DeregisterAfter = api.Duration(time.Minute)
		for i := range 20 {
			b.admit(fmt.Sprintf("i%02d", i), i+1, boot, alive)
		}
		p.set("1/started", "refused")
		p.set("2/started", "refused")
		pass(33 * time.Second)
		b.want("i00", "critical startup boot: 3 × refused")
		w := b.watch(WatchQuery{Services: []api.ServiceName{"orders"}})
		w.next()
		p.set("2/started", "") // slow, and not dead
		pass(5 * time.Minute)
		b.want("i00", "instance_not_found")
		b.want("i01", "passing")
		if got := w.next(); !strings.Contains(got, "delete:evict i00") {
			t.Errorf("watch told %q", got)
		}
		if n := b.counts.evictions.Load(); n != 1 {
			t.Errorf("%d evicted", n)
		}
	})
}

// P2: a liveness check that fails for deregister_after removes the instance, also one that
// sends heartbeats, but never more of a region than the brake allows.
func TestDeregisterAfter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		b := start(t, p.prober)
		for i := range 40 {
			b.admit(fmt.Sprintf("i%02d", i), i+1, alive)
		}
		pass(2 * time.Minute)
		p.set("1/alive", "refused")
		pass(33 * time.Second)
		b.want("i00", "critical liveness alive: 3 × refused")
		pass(42 * time.Second)
		b.want("i00", "critical liveness alive: 3 × refused")
		w := b.watch(WatchQuery{Services: []api.ServiceName{"orders"}})
		w.next()
		for range 40 {
			if _, err := b.Heartbeat(t.Context(), ikey("orders", "i00"), 0); err != nil {
				break
			}
			pass(time.Second)
		}
		b.want("i00", "instance_not_found")
		if got := w.next(); got != "delete:evict i00" {
			t.Errorf("watch told %q", got)
		}
		// Ten more: more than 15 %, fewer than half.
		pass(5 * time.Minute)
		for i := range 10 {
			p.set(fmt.Sprintf("%d/alive", i+2), "refused")
		}
		pass(105 * time.Second)
		if s := b.brakeState(); !s.Active || s.Evicted > 5 || s.Overdue+s.Evicted != 10 {
			t.Errorf("%+v", s)
		}
		held := ""
		for i := range 10 {
			if id := fmt.Sprintf("i%02d", i+1); held == "" && strings.HasPrefix(b.status(id), "critical") {
				held = id
				p.set(fmt.Sprintf("%d/alive", i+2), "")
			}
		}
		pass(12 * time.Second)
		b.want(held, "passing")
		if s := b.brakeState(); s.Overdue+s.Evicted != 9 {
			t.Errorf("who recovered is still overdue: %+v", s)
		}
		pass(5 * time.Minute)
		if s := b.brakeState(); s.Registered != 30 || s.Active {
			t.Errorf("the others leave as the brake allows: %+v", s)
		}
	})
}

// Draining is an order: no result of a check ends it, and it rests the liveness checks.
func TestDrainingWins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		b := start(t, p.prober)
		b.admit("a", 1, ready, alive)
		pass(time.Second)
		if _, err := b.SetStatus(t.Context(), ikey("orders", "a"), api.StatusChange{Status: api.StatusDraining, Note: "moving"}); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		p.set("1", "503")
		reads, lives := p.times("1/ready"), p.times("1/alive")
		pass(5 * time.Minute)
		b.want("a", "draining moving")
		if p.times("1/ready") < reads+25 || p.times("1/alive") > lives {
			t.Errorf("asked while draining: %v", p.asked)
		}
		b.admit("a", 1, ready, alive) // a refresh keeps it
		b.want("a", "draining moving")
		if _, err := b.SetStatus(t.Context(), ikey("orders", "a"), api.StatusChange{Status: api.StatusPassing}); err != nil {
			t.Fatal(err)
		}
		b.want("a", "critical readiness http: 3 × 503")
		pass(50 * time.Second) // liveness began anew
		b.want("a", "critical readiness http: 3 × 503")
	})
}

// What the program says of itself and what checks find: the worse counts.
func TestStatusByHandWithChecks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		b := start(t, p.prober)
		b.admit("a", 1, ready)
		pass(time.Second)
		set := func(s api.Status, note string) api.Instance {
			in, err := b.SetStatus(t.Context(), ikey("orders", "a"), api.StatusChange{Status: s, Note: note})
			if err != nil {
				t.Fatal(err)
			}
			return in
		}
		if in := set(api.StatusWarning, "slow disk"); in.Status != api.StatusWarning {
			t.Errorf("%+v", in)
		}
		pass(time.Minute)
		b.want("a", "warning slow disk")
		p.set("1", "503")
		pass(35 * time.Second)
		b.want("a", "critical readiness http: 3 × 503")
		if in := set(api.StatusPassing, ""); in.Status != api.StatusCritical {
			t.Errorf("passing by hand made it %s against the checks", in.Status)
		}
		set(api.StatusWarning, "slow disk")
		p.set("1", "")
		pass(12 * time.Second)
		b.want("a", "warning slow disk")
		set(api.StatusPassing, "")
		b.want("a", "passing")
	})
}

// P11: a restart forgets no verdict, asks everyone within an interval and not all at once.
func TestVerdictsSurviveARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		b := start(t, p.prober)
		for i := range 30 {
			b.admit(fmt.Sprintf("i%02d", i), i+1, ready)
		}
		pass(20 * time.Second)
		p.set("1", "503")
		pass(35 * time.Second)
		b.stop()
		if err := <-b.ended; err != nil {
			t.Error(err)
		}
		b.ended <- nil

		p2 := newClinic()
		p2.set("1", "503")
		p2.set("2", "503")
		b2 := newBed(t, p2.prober)
		b2.store.swap(b.store.inner())
		b2.run()
		<-b2.Loaded()
		b2.want("i00", "critical readiness http: 3 × 503")
		b2.want("i01", "passing")
		pass(time.Second)
		early := 0
		for i := range 30 {
			early += p2.times(fmt.Sprintf("%d/ready", i+1))
		}
		if early > 15 {
			t.Errorf("%d of 30 were asked in the first second", early)
		}
		pass(10 * time.Second)
		for i := range 30 {
			if p2.times(fmt.Sprintf("%d/ready", i+1)) == 0 {
				t.Errorf("i%02d was not asked within an interval", i)
			}
		}
		b2.want("i01", "passing")
		p2.set("1", "")
		pass(25 * time.Second)
		b2.want("i00", "passing")
		b2.want("i01", "critical readiness http: 3 × 503")
	})
}

// P2, P7: when most checks fail at once the node suspects itself and leaves every status.
func TestMostChecksFailAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		b := start(t, p.prober)
		for i := range 20 {
			b.admit(fmt.Sprintf("i%02d", i), i+1, ready, alive)
		}
		pass(time.Minute)
		if c := b.checkInfo(); c.Suspended || c.Checks != 40 || c.Instances != 20 || c.Statuses[api.StatusPassing] != 40 || c.Why == "" {
			t.Errorf("%+v", c)
		}
		p.set("all", "timeout")
		pass(5 * time.Minute)
		for i := range 20 {
			b.want(fmt.Sprintf("i%02d", i), "passing")
		}
		c := b.checkInfo()
		if !c.Suspended || c.Since == nil || !strings.Contains(c.Why, "this node or its network") || c.Suspects != 40 {
			t.Errorf("%+v", c)
		}
		// The network is back; two were really lost.
		p.set("1", "refused")
		p.set("2", "refused")
		p.set("all", "")
		pass(15 * time.Second)
		if c := b.checkInfo(); c.Suspended {
			t.Errorf("%+v", c)
		}
		b.want("i05", "passing")
		b.want("i00", "passing") // what was found in doubt proves nothing
		since := b.Snapshot().Instance(ikey("orders", "i05")).StatusSince
		if d := time.Since(since); d < 6*time.Minute {
			t.Errorf("i05 fell in between: passing since %s", d)
		}
		pass(25 * time.Second)
		// Removal counts from now, not from the outage.
		if !strings.HasPrefix(b.status("i00"), "critical") || b.brakeState().Overdue != 0 {
			t.Errorf("i00 is %s; %+v", b.status("i00"), b.brakeState())
		}
		pass(30 * time.Second)
		if !strings.HasPrefix(b.status("i00"), "critical") {
			t.Errorf("i00 is %s", b.status("i00"))
		}
		pass(2 * time.Minute)
		b.want("i00", "instance_not_found")
	})
}

// P2: what happens while this process stands still is no evidence against anyone.
func TestPauseAndChecks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		b := newBed(t, p.prober)
		pause := make(chan time.Duration, 1)
		b.beforeTick = func() {
			select {
			case d := <-pause:
				<-time.After(d)
			default:
			}
		}
		b.run()
		<-b.Loaded()
		for i := range 10 {
			b.admit(fmt.Sprintf("i%02d", i), i+1, alive)
		}
		pass(time.Minute)
		p.set("1", "refused")
		pass(45 * time.Second) // critical for about 20 s
		pause <- 10 * time.Minute
		p.mu.Lock()
		p.unable = true // nothing is asked meanwhile
		p.mu.Unlock()
		pass(10*time.Minute + time.Second)
		p.mu.Lock()
		p.unable = false
		p.mu.Unlock()
		pass(30 * time.Second)
		b.want("i00", "critical liveness alive: 3 × refused")
		pass(time.Minute)
		b.want("i00", "instance_not_found")
	})
}

// A heartbeat that was asked for is still needed when there are checks.
func TestChecksAndHeartbeats(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		b := start(t, p.prober)
		b.admit("checked", 1, ready)
		b.admit("both", 2, ready, api.Check{Kind: api.CheckTTL, TTL: api.Duration(testTTL)})
		pass(time.Second)
		b.want("both", "passing")
		pass(10 * time.Second)
		b.want("both", "instance_not_found")
		b.want("checked", "passing")
		if ack, err := b.Heartbeat(t.Context(), ikey("orders", "checked"), 0); err != nil || ack.TTL != 0 {
			t.Errorf("%+v, %v", ack, err)
		}
		if s := b.brakeState(); s.Grace < 0 || s.Grace > api.Duration(time.Minute) {
			t.Errorf("%+v", s)
		}
	})
}

// P8: an instance that flaps costs a bounded number of writes, and many changes at once few
// commits.
func TestVerdictsAreCoalesced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		b := start(t, p.prober)
		quick := api.Check{Kind: api.CheckHTTP, Interval: api.Duration(time.Second), FailuresBeforeCritical: 1}
		for i := range 300 {
			b.admit(fmt.Sprintf("i%03d", i), i+1, quick)
		}
		before := b.Snapshot().Version().Revision
		pass(5 * time.Second)
		if n := b.Snapshot().Counts().ByStatus[api.StatusPassing]; n != 300 {
			t.Fatalf("%d pass", n)
		}
		if n := b.Snapshot().Version().Revision - before; n > 20 {
			t.Errorf("%d commits for 300 verdicts", n)
		}
		before = b.Snapshot().Version().Revision
		for i := range 180 { // three minutes of a change every second
			code := ""
			if i%2 == 0 {
				code = "503"
			}
			p.set("1", code)
			pass(time.Second)
		}
		if n := b.Snapshot().Version().Revision - before; n > 30 {
			t.Errorf("%d commits for one that flaps", n)
		}
		if s := b.status("i000"); !strings.HasPrefix(s, "critical") || !strings.Contains(s, "flapping") {
			t.Errorf("it is %q", s)
		}
	})
}

// P10: without the store nothing changes for readers; verdicts are written when it is back.
func TestVerdictsWaitForTheStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		b := start(t, p.prober)
		for i := range 10 {
			b.admit(fmt.Sprintf("i%02d", i), i+1, ready)
		}
		pass(30 * time.Second)
		b.store.inner().SetUnavailable(true)
		p.set("1", "503")
		pass(time.Minute)
		b.want("i00", "passing")
		b.store.inner().SetUnavailable(false)
		pass(10 * time.Second)
		b.want("i00", "critical readiness http: 3 × 503")
	})
}

func TestRegisteringAgainWithChecks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		b := start(t, p.prober)
		b.admit("a", 1, ready)
		pass(time.Second)
		p.set("1/ready", "503")
		pass(40 * time.Second)
		before := b.Snapshot().Version().Revision
		if in := b.admit("a", 1, ready); in.Status != api.StatusCritical || b.Snapshot().Version().Revision != before {
			t.Errorf("a refresh changed it: %+v", in)
		}
		// A second check, of a program that is not offered: it begins as its role says.
		other := api.Check{Kind: api.CheckTCP}
		in := b.admit("a", 1, ready, other)
		if in.CheckResults[0].Status != api.StatusCritical || in.CheckResults[1].Status != api.StatusStarting {
			t.Errorf("%+v", in.CheckResults)
		}
		pass(2 * time.Second)
		p.set("1/ready", "")
		pass(12 * time.Second)
		b.want("a", "passing")
		// A rule more, or another one, of one that is offered does not send its callers away.
		tuned := ready
		tuned.Interval = api.Duration(5 * time.Second)
		if in := b.admit("a", 1, tuned, other, started); in.Status != api.StatusPassing {
			t.Errorf("%+v", in)
		}
		// A new incarnation begins anew.
		in, _, err := b.Register(t.Context(), ikey("orders", "a"), api.Registration{Address: "10.0.0.9", Port: 1, Checks: []api.Check{ready}, Incarnation: 9})
		if err != nil || in.Status != api.StatusStarting {
			t.Errorf("%+v, %v", in, err)
		}
		pass(time.Second)
		b.want("a", "passing")
		// Without checks its heartbeat counts again.
		if in = b.admit("a", 1); in.Status != api.StatusPassing || in.TTL.D() != api.DefaultTTL || in.CheckResults != nil {
			t.Errorf("%+v", in)
		}
		n := p.times("1/ready")
		pass(30 * time.Second)
		b.want("a", "instance_not_found")
		if p.times("1/ready") != n || b.checks.rounds.Len() != 0 {
			t.Error("it is still asked")
		}
	})
}

func TestChecksThatCannotBeRunAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := api.Registration{Address: "169.254.169.254", Port: 80, Checks: []api.Check{{Kind: api.CheckTTL}, ready}}
		b := start(t, newClinic().prober)
		_, _, err := b.Register(t.Context(), ikey("orders", "a"), r)
		b.wantCode(err, api.CodeInvalidField)
		var e *api.Error
		if !errors.As(err, &e) || e.Field != "checks[1]" || e.Remedy == "" {
			t.Errorf("%v", err)
		}
		none := start(t)
		r.Address = "10.0.0.9"
		_, _, err = none.Register(t.Context(), ikey("orders", "a"), r)
		none.wantCode(err, api.CodeUnsupported)
	})
}

// P8: instances that come and go leave nothing behind, with probes under way.
func TestCheckedInstancesComeAndGo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		p.slow = 700 * time.Millisecond
		b := start(t, p.prober)
		for round := range 20 {
			for i := range 20 {
				b.admit(fmt.Sprintf("i%02d", i), i+1+100*round, ready, alive)
			}
			pass(time.Duration(round) * 100 * time.Millisecond)
			for i := range 20 {
				if err := b.Deregister(t.Context(), ikey("orders", fmt.Sprintf("i%02d", i)), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		pass(5 * time.Second)
		if n := b.checks.rounds.Len(); n != 0 || len(b.checks.services) != 0 || len(b.checks.dirty) != 0 {
			t.Errorf("%d visits, %d services, %d dirty are left", n, len(b.checks.services), len(b.checks.dirty))
		}
	})
}
