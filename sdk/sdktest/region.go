package sdktest

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// Region is one region's registry. What its methods do to services and policies they do as the
// hand of the test: at once, also while the registry is killed or hung (who asks it learns of
// it when it is back).
type Region struct {
	w      *World
	name   api.Region
	server *server

	// All below is guarded by w.mu.
	killed, hung bool
	epoch        api.Epoch
	revision     uint64
	records      map[api.InstanceKey]*record
	history      []change                        // in order of revision
	forgotten    uint64                          // changes up to here are not in history
	rows         map[api.ServiceKey]*api.Summary // of services with instances; replaced, never changed
	policies     map[api.ServiceKey]*api.PolicyRecord
	drains       map[api.Region]*api.RegionDrain
	far          map[api.Region]*replica
	classes      map[api.ServiceKey]int // of loads; see load.go
	evict        bool
	faults       faults
	requests     uint64
	served       int // instances that Serve and Register named
}

// faults are what goes wrong with requests.
type faults struct {
	delay      time.Duration
	writes     api.Code // "" = none
	retryAfter time.Duration
	watches    api.Code
}

func (r *Region) up() bool { return !r.killed && !r.hung }

// Name returns the region's name.
func (r *Region) Name() api.Region { return r.name }

// World returns the world that the region is in.
func (r *Region) World() *World { return r.w }

// URL returns the base URL of the region's registry, without a slash at its end. It stays the same.
func (r *Region) URL() string { return "http://" + r.server.address }

// Config returns the configuration of a client whose home is the region. Fields may be changed before it is used.
func (r *Region) Config() nearside.Config {
	cfg := nearside.Config{Addresses: []string{r.URL()}, Region: r.name}
	if r.w.mem {
		cfg.HTTPClient = &http.Client{Transport: r.w.base}
	}
	return cfg
}

// Client returns a client at home in the region, which the world closes.
func (r *Region) Client() *nearside.Client {
	c, err := nearside.New(r.Config())
	if err != nil {
		r.w.fail("sdktest: %v", err)
	}
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.clients = append(r.w.clients, c)
	return c
}

// Kill ends the registry as SIGKILL does: connections are refused from now on, and watches
// break. Its records are kept for Heal. Instances of services go on; so do those of Serve.
func (r *Region) Kill() {
	r.server.kill()
	r.set(func() { r.killed, r.hung = true, false })
}

// Hang stops the registry as SIGSTOP does: it accepts connections and answers nobody.
func (r *Region) Hang() {
	r.server.hang()
	r.set(func() { r.hung = !r.killed })
}

// Heal ends Kill or Hang. All instances have a whole TTL for their next heartbeat, as after a
// restart of a real registry.
func (r *Region) Heal() {
	if err := r.server.heal(); err != nil {
		r.w.fail("sdktest: region %s does not come back: %v", r.name, err)
	}
	r.set(func() {
		r.killed, r.hung = false, false
		for _, rec := range r.records {
			rec.heard = time.Now()
			r.armLocked(rec)
		}
	})
}

// set changes whether the region is there, and what follows for its links.
func (r *Region) set(f func()) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	f()
	r.w.linksLocked()
}

// Wipe makes the registry lose everything it has stored: instances, policies and drains. A
// new epoch begins, and every connection breaks, as when a node is started with an empty
// disk. Programs that use the SDK register again by themselves; instances of Serve and
// Register do not.
func (r *Region) Wipe() {
	r.server.kill()
	r.w.mu.Lock()
	for _, rec := range r.records {
		rec.stop()
	}
	generation := r.epoch.Generation + 1
	r.epoch, r.revision = api.Epoch{Generation: generation, Nonce: nonce(r.name, generation)}, 1
	clear(r.records)
	clear(r.policies)
	clear(r.drains)
	clear(r.classes)
	r.rows, r.history, r.forgotten = map[api.ServiceKey]*api.Summary{}, nil, 1
	r.w.mu.Unlock()
	r.Heal()
}

// Delay lets every answer wait for d before it begins; 0 ends that. Frames of a watch that is open are not delayed.
func (r *Region) Delay(d time.Duration) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.faults.delay = d
}

// FailWrites refuses every write (registering, heartbeats, status, drains, policies) with
// code, and with a Retry-After of so much, if it is not 0 (whole seconds, rounded up). Reads
// and watches go on: CodeUnavailable is a region without its store. "" ends it.
func (r *Region) FailWrites(code api.Code, retryAfter time.Duration) {
	r.checkCode(code)
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.faults.writes, r.faults.retryAfter = code, retryAfter
}

// FailWatches refuses every new watch with code: clients ask by polling then. Watches that are
// open go on until they break. "" ends it.
func (r *Region) FailWatches(code api.Code) {
	r.checkCode(code)
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.faults.watches = code
}

func (r *Region) checkCode(code api.Code) {
	if _, ok := api.Codes()[code]; code != "" && !ok {
		r.w.fail("sdktest: %q is none of the codes of package api", code)
	}
}

// ForgetHistory lets the registry forget past changes: a watch that wants to resume from
// before now is answered with a reset and everything anew.
func (r *Region) ForgetHistory() {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.history, r.forgotten = nil, r.revision
}

// EvictOverdue lets the registry remove instances whose heartbeats stopped for their TTL and
// a second; off at first. Instances that Serve and Register made need no heartbeats.
func (r *Region) EvictOverdue(on bool) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.evict = on
	for _, rec := range r.records {
		r.armLocked(rec)
	}
}

// SetPolicy sets the policy of the region's callers for a service ("orders", or
// "orders.namespace"; "*" is the default of the namespace).
func (r *Region) SetPolicy(service string, p api.Policy) {
	key := r.key(service, true)
	r.w.mu.Lock()
	_, _, err := r.putPolicyLocked(key, api.PolicyWrite{Policy: p}, nil)
	r.w.mu.Unlock()
	if err != nil {
		r.w.fail("sdktest: policy for %s: %v", service, err)
	}
}

// RemovePolicy takes a policy back. It is no mistake if there is none.
func (r *Region) RemovePolicy(service string) {
	key := r.key(service, true)
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if r.policies[key] != nil {
		delete(r.policies, key)
		r.revision++
		r.w.spreadLocked(r)
	}
}

// Drain has the region's callers send so much less, in percent (0 = nothing is drained), to a
// region. A region that drains itself is left by the callers of all regions that hear of it.
func (r *Region) Drain(region api.Region, percent float64) {
	r.w.Region(region)
	r.w.mu.Lock()
	_, err := r.drainLocked(region, api.DrainRequest{Percent: percent})
	r.w.mu.Unlock()
	if err != nil {
		r.w.fail("sdktest: drain of %s: %v", region, err)
	}
}

// Instances returns the instances that the registry has of a service ("orders", or
// "orders.namespace"), by id. They are copies.
func (r *Region) Instances(service string) []api.Instance {
	key := r.key(service, false)
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return r.instancesLocked(key)
}

// Await waits until ok is true of the service's instances in the registry, as Instances
// returns them. It looks at once, and at every change; ok must not call methods of the world. It returns nil or the error of ctx.
func (r *Region) Await(ctx context.Context, service string, ok func([]api.Instance) bool) error {
	key := r.key(service, false)
	for {
		r.w.mu.Lock()
		list, changed, closed := r.instancesLocked(key), r.w.changed, r.w.closed
		r.w.mu.Unlock()
		switch {
		case ok(list):
			return nil
		case closed:
			return errWorldClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("service %s in %s, with %d instance(s): %w", service, r.name, len(list), ctx.Err())
		}
	}
}

// key reads a name of a service.
func (r *Region) key(name string, policy bool) api.ServiceKey {
	service, ns, dotted := strings.Cut(name, ".")
	key := api.ServiceKey{Namespace: api.DefaultNamespace, Service: api.ServiceName(service)}
	if dotted {
		key.Namespace = api.Namespace(ns)
	}
	check := api.CheckServiceName
	if policy {
		check = api.CheckPolicyService
	}
	if err := cmp.Or(check(service), api.CheckNamespace(string(key.Namespace))); err != nil {
		r.w.fail("sdktest: service %q: %v", name, err)
	}
	return key
}

func (r *Region) instancesLocked(key api.ServiceKey) []api.Instance {
	var list []api.Instance
	for k, rec := range r.records {
		if k.ServiceKey() == key {
			list = append(list, r.shownLocked(rec))
		}
	}
	slices.SortFunc(list, func(a, b api.Instance) int { return cmp.Compare(a.ID, b.ID) })
	return list
}
