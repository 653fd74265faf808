package nearside

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// world is a few fake regions on one in-memory network.
type world struct {
	t       *testing.T
	net     *memNet
	regions map[api.Region]*fakeRegion
}

func newWorld(t *testing.T, names ...api.Region) *world {
	w := &world{t: t, net: newMemNet(), regions: map[api.Region]*fakeRegion{}}
	for i, name := range names {
		r := &fakeRegion{
			w: w, name: name, addr: string(name) + ".registry:7400", epoch: api.Epoch{Generation: 1, Nonce: uint64(i + 1)},
			revision: 1, instances: map[api.ServiceKey]map[api.InstanceID]*api.Instance{}, subs: map[*sub]struct{}{},
			heard: map[api.InstanceID][]string{}, rtt: int64(20 * (i + 1)),
			drained: map[api.Region]float64{}, policies: map[api.ServiceName]*api.Policy{},
		}
		w.regions[name] = r
		r.start()
	}
	return w
}

// client returns a client at home in the first region of its configuration.
func (w *world) client(home api.Region, change func(*Config)) *Client {
	w.t.Helper()
	cfg := Config{
		Addresses: []string{w.regions[home].base()}, Region: home,
		HTTPClient: &http.Client{Transport: w.net.transport(w.t)},
	}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// fakeRegion is a registry as the SDK sees one.
type fakeRegion struct {
	w    *world
	name api.Region
	addr string
	rtt  int64

	mu        sync.Mutex
	epoch     api.Epoch
	revision  uint64
	instances map[api.ServiceKey]map[api.InstanceID]*api.Instance
	subs      map[*sub]struct{}
	heard     map[api.InstanceID][]string // requests about an instance
	noWatch   int                         // answer watches with this status; 0 = stream
	mute      bool                        // streams open, and nothing comes
	slow      time.Duration               // until a stream's list is sent
	from      []string                    // of each watch
	refuse    *api.Error                  // answer writes with it
	after     int                         // seconds of Retry-After that go with refusals; 0 = none
	before    func(what string)           // called ahead of each write
	cut       bool                        // knows nothing of others
	partly    map[api.Region]bool         // others that it does not know completely

	drained  map[api.Region]float64 // in percent, for this region's callers
	policies map[api.ServiceName]*api.Policy
	loads    map[api.ServiceName]int // told with each mark; 0 = not known any more
	told     []api.Load              // by heartbeats
	loadless bool                    // an older registry: refuses a heartbeat with a load
}

type sub struct {
	keys   map[api.ServiceKey]bool
	frames chan api.Frame
	gone   chan struct{}
	once   sync.Once
	deaf   bool // nothing is sent any more; guarded by the region
}

func (r *fakeRegion) base() string { return "http://" + r.addr }

func (r *fakeRegion) start() { r.w.net.serve(r.w.t, r.addr, r) }

func (r *fakeRegion) version() api.Version {
	return api.Version{Region: r.name, Epoch: r.epoch, Revision: r.revision}
}

// put registers an instance directly.
func (r *fakeRegion) put(service, id, address string, change func(*api.Instance)) {
	host, port, _ := strings.Cut(address, ":")
	p, _ := strconv.Atoi(port)
	in := &api.Instance{
		Namespace: api.DefaultNamespace, Service: api.ServiceName(service), ID: api.InstanceID(id), Region: r.name,
		Address: host, Port: p, Weight: api.DefaultWeight, Status: api.StatusPassing,
	}
	if change != nil {
		change(in)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.storeLocked(in, api.OpPut)
}

func (r *fakeRegion) remove(service, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := api.ServiceKey{Namespace: api.DefaultNamespace, Service: api.ServiceName(service)}
	if in := r.instances[key][api.InstanceID(id)]; in != nil {
		r.storeLocked(in, api.OpDelete)
	}
}

func (r *fakeRegion) storeLocked(in *api.Instance, op api.Op) {
	key := in.Key().ServiceKey()
	r.revision++
	in.Revision = r.revision
	if r.instances[key] == nil {
		r.instances[key] = map[api.InstanceID]*api.Instance{}
	}
	if op == api.OpDelete {
		delete(r.instances[key], in.ID)
	} else {
		r.instances[key][in.ID] = in
	}
	f := api.Frame{Kind: api.FrameChange, Version: r.version(), Op: op, Instance: in, Service: in.Service}
	for s := range r.subs {
		if s.keys[key] {
			s.frames <- f
		}
	}
	// Others hear of it at once: this is no test of the federation.
	sum := r.summaryLocked(key)
	o := r.originLocked()
	for _, other := range r.w.regions {
		if other != r && !other.cut {
			go other.hear(key, o, sum)
		}
	}
}

func (r *fakeRegion) hear(key api.ServiceKey, o api.Origin, sum *api.Summary) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := api.Frame{Kind: api.FrameReplica, Version: r.version(), Service: key.Service, Origin: &o, Summary: sum}
	for s := range r.subs {
		if s.keys[key] {
			s.frames <- f
		}
	}
}

func (r *fakeRegion) originLocked() api.Origin {
	return api.Origin{
		Region: r.name, Epoch: r.epoch, Revision: r.revision, Complete: true, Source: api.SourceReplica,
		RTTMS: r.rtt, Addresses: []string{r.base()}, State: api.AgeFresh,
	}
}

func (r *fakeRegion) origin() api.Origin {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.originLocked()
}

func (r *fakeRegion) summaryLocked(key api.ServiceKey) *api.Summary {
	list := r.instances[key]
	if len(list) == 0 {
		return nil
	}
	sum := &api.Summary{Namespace: key.Namespace, Service: key.Service, Total: len(list), Complete: true, Revision: r.revision, Load: r.loads[key.Service]}
	for _, in := range list {
		if in.Status.Usable() {
			sum.Passing++
		}
		sum.Endpoints = append(sum.Endpoints, in.Endpoint())
	}
	return sum
}

func (r *fakeRegion) others() []*fakeRegion {
	if r.cut {
		return nil
	}
	var list []*fakeRegion
	for _, o := range r.w.regions {
		if o != r {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b *fakeRegion) int { return cmp.Compare(a.name, b.name) })
	return list
}

// drain tells the region's callers to send so much less to another, or to itself.
func (r *fakeRegion) drain(region api.Region, percent float64) {
	r.mu.Lock()
	r.drained[region] = percent
	r.mu.Unlock()
	f := r.mark(api.FrameBookmark)
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.subs {
		s.frames <- f
	}
}

// rule sets the policy of a service; nil = none.
func (r *fakeRegion) rule(service api.ServiceName, p *api.Policy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.policies[service] = p
	for s := range r.subs {
		if s.keys[api.ServiceKey{Namespace: api.DefaultNamespace, Service: service}] {
			s.frames <- api.Frame{Kind: api.FramePolicy, Version: r.version(), Service: service, Policy: p}
		}
	}
}

// steeredLocked says what is wished of the regions.
func (r *fakeRegion) steeredLocked(origins []api.Origin) []api.Origin {
	for i := range origins {
		origins[i].Drained = r.drained[origins[i].Region]
		if r.partly[origins[i].Region] {
			origins[i].Complete = false
		}
	}
	return origins
}

// wipe restarts the region with an empty store: a new history.
func (r *fakeRegion) wipe() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch = api.Epoch{Generation: r.epoch.Generation + 1, Nonce: r.epoch.Nonce + 100}
	r.revision = 1
	r.instances = map[api.ServiceKey]map[api.InstanceID]*api.Instance{}
	for s := range r.subs {
		s.once.Do(func() { close(s.gone) })
	}
}

func (r *fakeRegion) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set(api.HeaderRegion, string(r.name))
	path := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	switch {
	case req.URL.Path == api.PathWatch:
		r.watch(w, req)
	case len(path) == 3 && path[1] == "resolve":
		r.resolve(w, api.ServiceKey{Namespace: api.DefaultNamespace, Service: api.ServiceName(path[2])})
	case len(path) >= 5 && path[1] == "services":
		r.instance(w, req, path)
	default:
		answerProblem(w, api.Errorf(api.CodeNotFound, "no path %s", req.URL.Path))
	}
}

func answerProblem(w http.ResponseWriter, e *api.Error) {
	w.Header().Set("Content-Type", api.ProblemType)
	w.WriteHeader(e.Code.HTTPStatus())
	_ = json.NewEncoder(w).Encode(e.Problem("test"))
}

func (r *fakeRegion) resolve(w http.ResponseWriter, key api.ServiceKey) {
	v := route.View{Key: key}
	var views []api.Origin
	for _, o := range append([]*fakeRegion{r}, r.others()...) {
		o.mu.Lock()
		views = append(views, o.originLocked())
		if sum := o.summaryLocked(key); sum != nil {
			v.Regions = append(v.Regions, route.RegionView{Origin: o.originLocked(), Endpoints: sum.Endpoints, Total: sum.Total, Passing: sum.Passing})
		}
		o.mu.Unlock()
	}
	r.mu.Lock()
	views, p := r.steeredLocked(views), r.policies[key.Service]
	for i := range v.Regions {
		v.Regions[i].Origin.Drained = r.drained[v.Regions[i].Origin.Region]
	}
	r.mu.Unlock()
	d := route.Decide(v, route.PolicyOf(p), route.Caller{Region: r.name}, nil)
	if d.Reason == api.ReasonServiceNotFound {
		answerProblem(w, api.Errorf(api.CodeServiceNotFound, "no service %s", key))
		return
	}
	_ = json.NewEncoder(w).Encode(api.Resolution{Service: key.Service, Endpoints: d.Endpoints(0), Decision: d.Wire(), Views: views, Policy: p})
}

func (r *fakeRegion) instance(w http.ResponseWriter, req *http.Request, path []string) {
	key := api.ServiceKey{Namespace: api.DefaultNamespace, Service: api.ServiceName(path[2])}
	id := api.InstanceID(path[4])
	sub := strings.Join(path[5:], "/")
	r.mu.Lock()
	before := r.before
	r.mu.Unlock()
	if before != nil {
		before(strings.TrimSpace(req.Method + " " + sub))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard[id] = append(r.heard[id], strings.TrimSpace(req.Method+" "+sub))
	if r.refuse != nil {
		if r.after > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(r.after))
		}
		answerProblem(w, r.refuse)
		return
	}
	old := r.instances[key][id]
	tooOld := func(inc uint64) bool {
		if old == nil || inc == 0 || inc >= old.Incarnation {
			return false
		}
		e := api.Errorf(api.CodeStaleIncarnation, "incarnation %d is known", old.Incarnation)
		e.Incarnation = old.Incarnation
		answerProblem(w, e)
		return true
	}
	missing := func() bool {
		if old == nil {
			answerProblem(w, api.Errorf(api.CodeInstanceNotFound, "no instance %s", id))
		}
		return old == nil
	}
	switch {
	case req.Method == http.MethodPut && sub == "":
		var reg api.Registration
		if err := api.DecodeStrict(req.Body, &reg); err != nil {
			answerProblem(w, err.(*api.Error))
			return
		}
		if tooOld(reg.Incarnation) {
			return
		}
		in := &api.Instance{
			Namespace: key.Namespace, Service: key.Service, ID: id, Region: r.name, Zone: reg.Zone, Address: reg.Address,
			Port: reg.Port, Weight: *reg.Weight, Status: reg.Status, Incarnation: reg.Incarnation, TTL: reg.TTL,
			Metadata: reg.Metadata, Tags: reg.Tags, Version: reg.Version, Capacity: reg.Capacity,
		}
		if old != nil && old.Incarnation == in.Incarnation && // as the registry does
			(old.Status == api.StatusDraining || in.Status == api.StatusStarting && old.Status.Usable()) {
			in.Status, in.StatusNote = old.Status, old.StatusNote
		}
		r.storeLocked(in, api.OpPut)
		_ = json.NewEncoder(w).Encode(in)
	case sub == "heartbeat":
		var hb api.Heartbeat
		_ = api.DecodeStrict(req.Body, &hb)
		if r.loadless && !hb.Load.IsZero() {
			answerProblem(w, &api.Error{Code: api.CodeUnknownField, Field: "load", Detail: "there is no field \"load\""})
			return
		}
		if missing() || tooOld(hb.Incarnation) {
			return
		}
		r.told = append(r.told, hb.Load)
		_ = json.NewEncoder(w).Encode(api.HeartbeatAck{ID: id, Status: old.Status, Incarnation: old.Incarnation, TTL: old.TTL, Epoch: r.epoch})
	case sub == "status":
		var c api.StatusChange
		if err := api.DecodeStrict(req.Body, &c); err != nil || missing() || tooOld(c.Incarnation) {
			return
		}
		next := *old
		next.Status, next.StatusNote = c.Status, c.Note
		r.storeLocked(&next, api.OpPut)
		_ = json.NewEncoder(w).Encode(next)
	case req.Method == http.MethodDelete:
		inc, _ := strconv.ParseUint(req.URL.Query().Get("incarnation"), 10, 64)
		if missing() || tooOld(inc) {
			return
		}
		r.storeLocked(old, api.OpDelete)
		w.WriteHeader(http.StatusNoContent)
	}
}

// requests returns what was asked about an instance.
func (r *fakeRegion) requests(id string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.heard[api.InstanceID(id)])
}

// stored returns an instance as the region has it.
func (r *fakeRegion) stored(service, id string) *api.Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.instances[api.ServiceKey{Namespace: api.DefaultNamespace, Service: api.ServiceName(service)}][api.InstanceID(id)]
}

func (r *fakeRegion) watch(w http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
	r.mu.Lock()
	r.from = append(r.from, q.Get("from"))
	noWatch, mute, slow := r.noWatch, r.mute, r.slow
	r.mu.Unlock()
	if noWatch != 0 {
		answerProblem(w, &api.Error{Code: api.CodeTooManyRequests, Detail: "no more watches"})
		return
	}
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	_ = rc.Flush()
	if mute {
		<-req.Context().Done()
		return
	}
	if !sleep(req.Context(), slow) {
		return
	}
	s := &sub{keys: map[api.ServiceKey]bool{}, frames: make(chan api.Frame, 10_000), gone: make(chan struct{})}
	send := func(f api.Frame) error {
		r.mu.Lock()
		deaf := s.deaf
		r.mu.Unlock()
		if deaf {
			return nil
		}
		b, _ := json.Marshal(f)
		if _, err := fmt.Fprintf(w, "event: %s\nid: %s\ndata: %s\n\n", f.Kind, f.Version, b); err != nil {
			return err
		}
		return rc.Flush()
	}
	_, _ = fmt.Fprint(w, "retry: 1000\n\n")
	for _, name := range q["service"] {
		s.keys[api.ServiceKey{Namespace: api.DefaultNamespace, Service: api.ServiceName(name)}] = true
	}
	for _, f := range r.begin(s, q.Get("from")) {
		if send(f) != nil {
			break
		}
	}
	defer func() {
		r.mu.Lock()
		delete(r.subs, s)
		r.mu.Unlock()
	}()
	beat := time.NewTicker(api.BookmarkInterval)
	defer beat.Stop()
	for {
		var err error
		select {
		case f := <-s.frames:
			err = send(f)
		case <-beat.C:
			err = send(r.mark(api.FrameBookmark))
		case <-s.gone:
			return
		case <-req.Context().Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// begin subscribes, and returns the frames up to synced.
func (r *fakeRegion) begin(s *sub, from string) []api.Frame {
	var far []api.Frame
	for _, o := range r.others() {
		o.mu.Lock()
		for _, key := range sortedKeys(s.keys) {
			if sum := o.summaryLocked(key); sum != nil {
				origin := o.originLocked()
				far = append(far, api.Frame{Kind: api.FrameReplica, Service: key.Service, Origin: &origin, Summary: sum})
			}
		}
		o.mu.Unlock()
	}
	synced := r.mark(api.FrameSynced)
	r.mu.Lock()
	defer r.mu.Unlock()
	var frames []api.Frame
	if from == "" || from != r.version().String() {
		if from != "" {
			frames = append(frames, api.Frame{Kind: api.FrameReset, Version: r.version(), Reason: "history is gone"})
		}
		for _, key := range sortedKeys(s.keys) {
			for _, in := range r.instances[key] {
				frames = append(frames, api.Frame{Kind: api.FrameItem, Version: r.version(), Instance: in, Service: key.Service})
			}
		}
	}
	for _, key := range sortedKeys(s.keys) {
		if p := r.policies[key.Service]; p != nil {
			far = append(far, api.Frame{Kind: api.FramePolicy, Version: r.version(), Service: key.Service, Policy: p})
		}
	}
	r.subs[s] = struct{}{}
	synced.Version = r.version()
	return append(append(frames, far...), synced)
}

func sortedKeys(m map[api.ServiceKey]bool) []api.ServiceKey {
	return slices.SortedFunc(maps.Keys(m), func(a, b api.ServiceKey) int { return cmp.Compare(a.Service, b.Service) })
}

// mark returns a frame with what is known of everybody.
func (r *fakeRegion) mark(kind api.FrameKind) api.Frame {
	var origins []api.Origin
	for _, o := range r.others() {
		origins = append(origins, o.origin())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drained[r.name] > 0 {
		origins = append(origins, r.originLocked())
	}
	f := api.Frame{Kind: kind, Version: r.version(), Origins: r.steeredLocked(origins), Addresses: []string{r.base()}}
	for name, percent := range r.loads {
		if percent > 0 || kind == api.FrameBookmark {
			f.Loads = append(f.Loads, api.ServiceLoad{Service: name, Percent: float64(percent)})
		}
	}
	return f
}

// program is a fake instance: an HTTP server that says who it is.
type program struct {
	mu     sync.Mutex
	status int           // 0 = 200
	delay  time.Duration // before the headers
	calls  int
	last   *http.Request
	handle http.HandlerFunc // instead of all that
}

func (p *program) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	p.mu.Lock()
	p.calls++
	p.last = req
	status, delay, handle := p.status, p.delay, p.handle
	p.mu.Unlock()
	if handle != nil {
		handle(w, req)
		return
	}
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-req.Context().Done():
			return
		}
	}
	if status != 0 {
		w.WriteHeader(status)
	}
}

func (p *program) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

func (p *program) set(f func(*program)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

// run starts a program and registers it with its region.
func (w *world) run(region api.Region, service, id string) *program {
	p := &program{}
	addr := w.addr(region, service, id)
	w.net.serve(w.t, addr, p)
	w.regions[region].put(service, id, addr, nil)
	return p
}

func (w *world) addr(region api.Region, service, id string) string {
	return fmt.Sprintf("%s.%s.%s:80", id, service, region)
}

// get calls a service through the transport and returns who served.
func get(t *testing.T, c *http.Client, url string) (region, instance string, status int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", "", 0, err
	}
	_ = resp.Body.Close()
	return resp.Header.Get(HeaderServedRegion), resp.Header.Get(HeaderServedInstance), resp.StatusCode, nil
}
