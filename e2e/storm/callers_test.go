package storm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/shop"
)

// service is what callers call, and where they may.
type service struct {
	name, path string
	allowed    []api.Region // nil = all
	localOnly  bool
	every      time.Duration // of one program
	post       string        // where every second call goes instead, by POST with a key
}

var services = []service{
	{name: "catalog", path: "/products/sku-1", every: 150 * time.Millisecond},
	{name: "users", path: "/users/u-1", allowed: []api.Region{us, eu}, every: 250 * time.Millisecond},
	{name: "payments", path: "/fees?amount=1999", localOnly: true, every: 500 * time.Millisecond, post: "/charges"},
}

// may reports whether callers in a region may be served by another.
func (s service) may(caller, server api.Region) bool {
	if s.localOnly {
		return caller == server
	}
	return s.allowed == nil || slices.Contains(s.allowed, server)
}

// nearest returns where the callers of a region are served in good weather.
func (s service) nearest(caller api.Region) api.Region {
	if s.may(caller, caller) {
		return caller
	}
	return eu // of those that are allowed, the nearest to ap-south
}

// sky is what the callers know of the storm, for the record of a failure.
type sky interface {
	underWay() string
	// homeless reports whether a region has no instance that is known, dark whether it has no programs either.
	homeless(r api.Region) bool
	dark(r api.Region) bool
}

// program is one program of a region that calls all services through an SDK client of its own.
type program struct {
	name   string
	region api.Region
	client *nearside.Client
	calls  *http.Client
	sky    sky
	rules  *rules
}

// crowd is all programs, and what they met.
type crowd struct {
	programs []*program
	rules    *rules
	end      func() error // stops and closes all of them; their first error of closing
}

// callerLabel marks the goroutines of the programs, so that one which stays is found.
const callerLabel = "storm"

// gather starts the programs: two of each region, one of which knows its zone and has a snapshot.
// It returns once each knows each service and its rules.
func gather(t *testing.T, c *cluster.Cluster, w *roads, sky sky) *crowd {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	rules := newRules()
	all := &crowd{rules: rules}
	var closers []func() error
	pprof.Do(ctx, pprof.Labels(callerLabel, t.Name()), func(ctx context.Context) {
		for _, r := range regions {
			for i := range 2 {
				cfg := nearside.Config{
					Addresses: []string{c.Node(r).URL()}, Region: r, App: fmt.Sprintf("program-%d", i),
				}
				if i == 0 {
					cfg.Zone, cfg.SnapshotDir = api.Zone(r+"-a"), filepath.Join(c.Dir, string(r), "programs")
				}
				registries := &http.Transport{DialContext: w.dialer(r), ResponseHeaderTimeout: 10 * time.Second, MaxIdleConnsPerHost: 4}
				cfg.HTTPClient = &http.Client{Transport: registries}
				client, err := nearside.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				base := &http.Transport{DialContext: w.dialer(r), MaxIdleConnsPerHost: 16}
				p := &program{
					name: fmt.Sprintf("%s/%d", r, i), region: r, client: client, sky: sky, rules: rules,
					calls: &http.Client{Transport: client.Transport(base), Timeout: callTimeout},
				}
				all.programs = append(all.programs, p)
				closers = append(closers, func() error {
					err := client.Close()
					base.CloseIdleConnections()
					registries.CloseIdleConnections()
					return err
				})
				for _, s := range services {
					cluster.Within(t, patience, p.name+" knows "+s.name, func() error { return p.knows(ctx, s) })
					ended.Go(func() { p.run(ctx, s) })
				}
			}
		}
	})
	all.end = sync.OnceValue(func() error {
		stop()
		ended.Wait()
		var errs []error
		for _, f := range closers {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	})
	t.Cleanup(func() { _ = all.end() })
	return all
}

// callTimeout is how long a program waits for an answer at most.
const callTimeout = 10 * time.Second

func (p *program) knows(ctx context.Context, s service) error {
	r, err := p.client.Resolve(ctx, s.name)
	if err != nil {
		return err
	}
	if near := s.nearest(p.region); r.Decision.Region != near || r.Policy == nil || len(r.Views) != len(regions) {
		return fmt.Errorf("%+v of %d regions, policy %+v", r.Decision, len(r.Views), r.Policy)
	}
	return nil
}

// run calls a service at a steady rate, whatever becomes of the calls.
func (p *program) run(ctx context.Context, s service) {
	each := time.NewTicker(s.every)
	defer each.Stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-each.C:
		}
		if p.sky.dark(p.region) {
			continue
		}
		before, err := p.client.Resolve(ctx, s.name)
		if ctx.Err() != nil {
			return
		}
		p.rules.resolved(p, s, before, err)
		key := ""
		if s.post != "" && n%2 == 1 {
			key = fmt.Sprintf("%s/%s/%d", p.name, s.name, n)
		}
		calls.Go(func() { p.call(ctx, s, key, before) })
	}
}

// answer is one answered call, and what its program knew about it.
type answer struct {
	region, claimed api.Region     // by the instance's own word, and by the label
	instance, label api.InstanceID // the same of the instance
	attempts        int
	keyed           bool // safe to repeat by its key alone
	before, after   api.Resolution
	took            time.Duration
}

// request is a call of a service; with a key it is a POST, which the key makes safe to repeat.
func (s service) request(ctx context.Context, key string) *http.Request {
	method, path, body := http.MethodGet, s.path, io.Reader(nil)
	if key != "" {
		method, path, body = http.MethodPost, s.post, strings.NewReader(`{"order":"o-1","user":"u-1","amount_cents":1999,"currency":"EUR"}`)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.name+path, body)
	if err != nil {
		panic(err)
	}
	if key != "" {
		req.Header.Set(shop.HeaderIdempotencyKey, key)
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

func (p *program) call(ctx context.Context, s service, key string, before api.Resolution) {
	homeless := p.sky.homeless(p.region)
	began := time.Now()
	req := s.request(ctx, key)
	resp, err := p.calls.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err == nil && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
			err = fmt.Errorf("status %s of %s", resp.Status, resp.Header.Get(nearside.HeaderServedInstance))
		}
	}
	took := time.Since(began)
	if ctx.Err() != nil || p.sky.dark(p.region) {
		return
	}
	after, _ := p.client.Resolve(ctx, s.name)
	if err != nil {
		// Without an instance at home, what must not leave home cannot be called.
		refused := s.localOnly && (homeless || p.sky.homeless(p.region))
		p.rules.failed(refused, fmt.Sprintf("%s calls %s by %s: %v\n    after %s; before it: %s\n    now: %s\n    decided lately:%s\n    under way: %s",
			p.name, s.name, req.Method, err, took.Round(time.Millisecond), brief(before), brief(after), p.rules.decidedLately(p, s), p.sky.underWay()))
		return
	}
	h := resp.Header
	attempts, _ := strconv.Atoi(h.Get(nearside.HeaderAttempts))
	p.rules.answered(p, s, answer{
		region: api.Region(h.Get("Shop-Region")), claimed: api.Region(h.Get(nearside.HeaderServedRegion)),
		instance: api.InstanceID(h.Get("Shop-Instance")), label: api.InstanceID(h.Get(nearside.HeaderServedInstance)),
		attempts: attempts, keyed: key != "", before: before, after: after, took: took,
	})
}

// brief is a decision for the record of a failure.
func brief(r api.Resolution) string {
	var s strings.Builder
	s.WriteString(tiers(r))
	for _, v := range r.Views {
		fmt.Fprintf(&s, "; %s %s %s", v.Region, v.State, time.Duration(v.AgeMS)*time.Millisecond)
	}
	return s.String()
}

func tiers(r api.Resolution) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s:", r.Decision.Reason)
	for _, t := range r.Decision.Tiers {
		fmt.Fprintf(&s, " %s(%s) %.0f %% %d/%d", t.Region, t.Kind, 100*t.Weight, t.Usable, t.Total)
	}
	return s.String()
}
