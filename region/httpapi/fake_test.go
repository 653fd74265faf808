package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	testEpoch = api.Epoch{Generation: 3, Nonce: 0xabc}
	testTime  = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
)

// fake is a registry of one map: enough to answer every call, and strict where the real
// one is. It records the last query of each kind.
type fake struct {
	mu        sync.Mutex
	instances map[api.InstanceKey]api.Instance
	revision  uint64
	last      any
	ctx       context.Context // of the last call

	ready   bool
	failure error                                                                              // when set, every call returns it
	onGet   func()                                                                             // runs between a Get's read and its return
	onWatch func(ctx context.Context, q registry.WatchQuery, send func(api.Frame) error) error // nil = one synced, then wait

	large   *store.Image // what Backup returns, when set
	backups atomic.Int64 // how often it did
}

func newFake() *fake {
	f := &fake{instances: make(map[api.InstanceKey]api.Instance), ready: true, revision: 41}
	key := api.InstanceKey{Namespace: "default", Service: "orders", ID: "orders-1"}
	_, _, _ = f.Register(context.Background(), key, api.Registration{Address: "10.0.0.1", Port: 8080, Incarnation: 5})
	return f
}

func (f *fake) note(ctx context.Context, q any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last, f.ctx = q, ctx
	return f.failure
}

func (f *fake) Stamp() registry.Stamp {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stamp()
}

func (f *fake) stamp() registry.Stamp {
	return registry.Stamp{
		Version: api.Version{Region: "us-east", Epoch: testEpoch, Revision: f.revision},
		Source:  api.SourceMemory, Region: "us-east", Age: 7 * time.Millisecond,
	}
}

func (f *fake) Register(ctx context.Context, key api.InstanceKey, reg api.Registration) (api.Instance, bool, error) {
	if err := f.note(ctx, reg); err != nil {
		return api.Instance{}, false, err
	}
	reg, err := reg.Normalize()
	if err != nil {
		return api.Instance{}, false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old, exists := f.instances[key]
	if reg.Incarnation < old.Incarnation && reg.Incarnation != 0 {
		return api.Instance{}, false, &api.Error{Code: api.CodeStaleIncarnation, Detail: "a newer one exists", Incarnation: old.Incarnation}
	}
	f.revision++
	i := api.Instance{
		Namespace: key.Namespace, Service: key.Service, ID: key.ID, Region: "us-east", Zone: reg.Zone, Address: reg.Address,
		Port: reg.Port, Ports: reg.Ports, Weight: *reg.Weight, Capacity: reg.Capacity, Version: reg.Version, Tags: reg.Tags,
		Metadata: reg.Metadata, TTL: reg.TTL, Incarnation: max(reg.Incarnation, old.Incarnation, 1), Status: reg.Status,
		StatusSince: testTime, RegisteredAt: testTime, Revision: f.revision,
	}
	f.instances[key] = i
	return i, !exists, nil
}

func (f *fake) ListMembers(ctx context.Context, region api.Region) (api.MemberList, registry.Stamp, error) {
	if err := f.note(ctx, region); err != nil {
		return api.MemberList{}, registry.Stamp{}, err
	}
	return api.MemberList{Region: region, Members: []api.Member{{Node: "n1", ID: "00000000000000a1", Address: "10.0.0.1:7403", Role: api.RoleVoter, Started: true, Answers: true, Leader: true}}}, f.Stamp(), nil
}

func (f *fake) RaiseEpochFor(ctx context.Context, region api.Region, raise api.EpochRaise) (api.EpochRaised, registry.Stamp, error) {
	if err := f.note(ctx, raise); err != nil {
		return api.EpochRaised{}, registry.Stamp{}, err
	}
	return api.EpochRaised{Region: region, Epoch: api.Epoch{Generation: raise.Above + 1, Nonce: 0xabc}, Revision: 42}, f.Stamp(), nil
}

func (f *fake) AddMember(ctx context.Context, _ api.Region, add api.MemberAdd) (api.Member, bool, error) {
	if err := f.note(ctx, add); err != nil {
		return api.Member{}, false, err
	}
	if add.Node == "" {
		return api.Member{}, false, api.FieldError("node", "no node", "name it")
	}
	return api.Member{Node: add.Node, Address: add.Address, Role: api.RoleLearner}, add.Node != "n1", nil
}

func (f *fake) RemoveMember(ctx context.Context, _ api.Region, node string, force bool) error {
	if err := f.note(ctx, [2]any{node, force}); err != nil {
		return err
	}
	if node == "n1" && !force {
		return api.Errorf(api.CodeConflict, "too few would be left")
	}
	return nil
}

func (f *fake) find(key api.InstanceKey, incarnation uint64) (api.Instance, error) {
	i, ok := f.instances[key]
	switch {
	case !ok:
		return i, api.Errorf(api.CodeInstanceNotFound, "there is no instance %s", key)
	case incarnation != 0 && incarnation < i.Incarnation:
		return i, &api.Error{Code: api.CodeStaleIncarnation, Detail: "a newer one exists", Incarnation: i.Incarnation}
	}
	return i, nil
}

func (f *fake) Get(ctx context.Context, key api.InstanceKey, o registry.ReadOptions) (api.Instance, registry.Stamp, error) {
	if err := f.note(ctx, o); err != nil {
		return api.Instance{}, registry.Stamp{}, err
	}
	f.mu.Lock()
	i, err := f.find(key, 0)
	st := f.stamp()
	f.mu.Unlock()
	if o.Strong {
		st.Source = api.SourceStore
	}
	if f.onGet != nil {
		f.onGet()
	}
	return i, st, err
}

func (f *fake) RemoveService(ctx context.Context, ns api.Namespace, service api.ServiceName) (api.ServiceRemoved, error) {
	out := api.ServiceRemoved{Namespace: ns, Service: service}
	if err := f.note(ctx, api.ServiceKey{Namespace: ns, Service: service}); err != nil {
		return out, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := range f.instances {
		if k.ServiceKey() == (api.ServiceKey{Namespace: ns, Service: service}) {
			delete(f.instances, k)
			out.Removed++
		}
	}
	f.revision++
	out.Revision = f.revision
	return out, nil
}

func (f *fake) Deregister(ctx context.Context, key api.InstanceKey, incarnation uint64) error {
	if err := f.note(ctx, incarnation); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(key, incarnation); err != nil {
		return err
	}
	delete(f.instances, key)
	f.revision++
	return nil
}

func (f *fake) Beat(ctx context.Context, key api.InstanceKey, hb api.Heartbeat) (api.HeartbeatAck, error) {
	incarnation := hb.Incarnation
	if err := f.note(ctx, incarnation); err != nil {
		return api.HeartbeatAck{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.find(key, incarnation)
	if err != nil {
		return api.HeartbeatAck{}, err
	}
	return api.HeartbeatAck{ID: i.ID, Status: i.Status, Incarnation: i.Incarnation, TTL: i.TTL, Epoch: testEpoch}, nil
}

func (f *fake) Heartbeats(ctx context.Context, items []api.BatchHeartbeat) []error {
	errs := make([]error, len(items))
	for i := range items {
		it := &items[i]
		_, errs[i] = f.Beat(ctx, keyOf(&it.Namespace, api.DefaultNamespace, it.Service, it.ID), api.Heartbeat{Incarnation: it.Incarnation, Load: it.Load})
	}
	return errs
}

func (f *fake) Report(ctx context.Context, node string, rep api.NodeReport) (api.NodeAnswer, error) {
	if err := f.note(ctx, rep); err != nil {
		return api.NodeAnswer{}, err
	}
	if err := rep.Validate(); err != nil {
		return api.NodeAnswer{}, err
	}
	return api.NodeAnswer{Term: rep.Term, Epoch: testEpoch, Revision: f.revision}, nil
}

func (f *fake) SetStatus(ctx context.Context, key api.InstanceKey, c api.StatusChange) (api.Instance, error) {
	if err := f.note(ctx, c); err != nil {
		return api.Instance{}, err
	}
	if err := c.Validate(); err != nil {
		return api.Instance{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.find(key, c.Incarnation)
	if err != nil {
		return i, err
	}
	f.revision++
	i.Status, i.StatusNote, i.Revision = c.Status, c.Note, f.revision
	f.instances[key] = i
	return i, nil
}

func (f *fake) EndDrain(ctx context.Context, key api.InstanceKey, incarnation uint64) (api.Instance, error) {
	return f.SetStatus(ctx, key, api.StatusChange{Status: api.StatusPassing, Incarnation: incarnation})
}

func (f *fake) ListServices(ctx context.Context, q registry.ServicesQuery) (api.ServiceList, registry.Stamp, error) {
	err := f.note(ctx, q)
	return api.ServiceList{Services: []api.ServiceCount{{
		Namespace: q.Namespace, Service: "orders", Instances: 1, Statuses: map[api.Status]int{api.StatusPassing: 1}, Passing: 1,
	}}}, f.Stamp(), err
}

func (f *fake) ListInstances(ctx context.Context, q registry.InstancesQuery) (api.InstanceList, registry.Stamp, error) {
	if err := f.note(ctx, q); err != nil {
		return api.InstanceList{}, registry.Stamp{}, err
	}
	if q.Region != "" && q.Region != "us-east" && q.Region != "eu-west" {
		return api.InstanceList{}, registry.Stamp{}, api.Errorf(api.CodeRegionNotFound, "region %s is not known", q.Region)
	}
	st := f.Stamp()
	if q.Region == "eu-west" {
		st.Region, st.Source = q.Region, api.SourceReplica
	}
	return api.InstanceList{Service: q.Service, Namespace: q.Namespace, Region: st.Region, Complete: true}, st, nil
}

func (f *fake) Resolve(ctx context.Context, q registry.ResolveQuery) (api.Resolution, registry.Stamp, error) {
	if err := f.note(ctx, q); err != nil {
		return api.Resolution{}, registry.Stamp{}, err
	}
	if q.Service == "nobody" {
		return api.Resolution{}, registry.Stamp{}, api.Errorf(api.CodeServiceNotFound, "no region known has %s", q.Service)
	}
	return api.Resolution{
		Service: q.Service, Namespace: q.Namespace,
		Endpoints: []api.Endpoint{{ID: "orders-1", Address: "10.0.0.1", Port: 8080, Region: "us-east", Weight: 100, Status: api.StatusPassing}},
		Decision:  api.Decision{Reason: api.ReasonSameRegion, Detail: "<1 instance & nothing else>", Region: "us-east"},
	}, f.Stamp(), nil
}

func (f *fake) ResolveShared(ctx context.Context, q registry.ResolveQuery) (*registry.Answer, []api.Origin, registry.Stamp, error) {
	res, st, err := f.Resolve(ctx, q)
	return &registry.Answer{Resolution: res}, nil, st, err
}

func (f *fake) Explain(ctx context.Context, q registry.ResolveQuery) (api.Explanation, registry.Stamp, error) {
	res, st, err := f.Resolve(ctx, q)
	return api.Explanation{Resolution: res, From: "us-east"}, st, err
}

func (f *fake) WhatIf(ctx context.Context, q registry.WhatIfQuery) (api.WhatIf, registry.Stamp, error) {
	return api.WhatIf{Region: "us-east", Lost: q.Losses, Effect: api.EffectNone, Detail: "<nothing>"}, f.Stamp(), f.note(ctx, q)
}

func (f *fake) WatchShared(ctx context.Context, q registry.WatchQuery, send func(*api.Frame, *encoded.Frame) error) error {
	return f.Watch(ctx, q, func(f api.Frame) error { return send(&f, nil) })
}

func (f *fake) Watch(ctx context.Context, q registry.WatchQuery, send func(api.Frame) error) error {
	if err := f.note(ctx, q); err != nil {
		return err
	}
	if f.onWatch != nil {
		return f.onWatch(ctx, q, send)
	}
	if err := send(api.Frame{Kind: api.FrameSynced, Version: f.Stamp().Version}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (f *fake) Events(ctx context.Context, q events.Query) (api.EventList, registry.Stamp, error) {
	return api.EventList{Region: "us-east", Node: "n1", First: 1, Last: 9}, f.Stamp(), f.note(ctx, q)
}

func (f *fake) FollowEvents(ctx context.Context, q events.Query, send func(api.EventFrame) error) error {
	if err := f.note(ctx, q); err != nil {
		return err
	}
	for _, frame := range []api.EventFrame{
		{Gap: &api.EventGap{After: 3, Next: 7}},
		{Event: &api.Event{ID: 7, Time: testTime, Region: "us-east", Node: "n1", Kind: api.EventEvict, Subject: "orders/o-1", Cause: api.EventCause{Kind: "a<b", Ref: 5}, Detail: "a\nb"}, Last: 7},
		{Last: 9},
	} {
		if err := send(frame); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Regions(ctx context.Context) (api.RegionList, registry.Stamp, error) {
	return api.RegionList{Home: "us-east"}, f.Stamp(), f.note(ctx, nil)
}

func (f *fake) RegionInfo(ctx context.Context, region api.Region) (api.RegionInfo, registry.Stamp, error) {
	if err := f.note(ctx, region); err != nil {
		return api.RegionInfo{}, registry.Stamp{}, err
	}
	if region != "us-east" {
		return api.RegionInfo{}, registry.Stamp{}, api.Errorf(api.CodeRegionNotFound, "region %s is not known", region)
	}
	return api.RegionInfo{Origin: api.Origin{Region: region}, Self: true}, f.Stamp(), nil
}

func (f *fake) RegionsOf(ctx context.Context, ns api.Namespace) (api.RegionList, registry.Stamp, error) {
	return api.RegionList{Home: "us-east"}, f.Stamp(), f.note(ctx, ns)
}

func (f *fake) RegionInfoOf(ctx context.Context, region api.Region, ns api.Namespace) (api.RegionInfo, registry.Stamp, error) {
	info, st, err := f.RegionInfo(ctx, region)
	info.Namespace = ns
	return info, st, err
}

func (f *fake) VerifyRegion(ctx context.Context, region api.Region) (api.Verification, error) {
	return api.Verification{Region: region, Result: api.VerifyEqual}, f.note(ctx, region)
}

func (f *fake) ResyncRegion(ctx context.Context, region api.Region) (api.ResyncInfo, error) {
	return api.ResyncInfo{Region: region, State: api.ResyncWaiting}, f.note(ctx, region)
}

func (f *fake) Federation(ctx context.Context) (api.FederationInfo, registry.Stamp, error) {
	return api.FederationInfo{Region: "us-east"}, f.Stamp(), f.note(ctx, nil)
}

func (f *fake) Limits() api.Limits { return api.Limits{BodyBytes: api.MaxBodyBytes} }

func (f *fake) Readiness() api.Readiness {
	return api.Readiness{Ready: f.ready, Region: "us-east", Node: "n1", Checks: []api.ReadinessCheck{{Name: "store", OK: f.ready}}}
}

// testDoor returns a handler over f, and what it logs.
func testDoor(t testing.TB, f Registry, more func(*Config)) (http.Handler, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	cfg := Config{
		Registry: f, Region: "us-east", Node: "n1", AllowedHosts: []string{"node.example.org"},
		Logger:  slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "nearside_up 1\n") }),
	}
	if more != nil {
		more(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h, log
}

// raw is a request as it comes over the wire, so that nothing is made right on the way.
type raw struct {
	method, target, header, body string // header: lines, separated by \n
}

// parse returns the request as net/http would hand it to a handler; an error when net/http
// refuses it by itself.
func (q raw) parse() (*http.Request, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", q.method, q.target)
	if !strings.Contains("\n"+strings.ToLower(q.header), "\nhost:") {
		b.WriteString("Host: 127.0.0.1:7400\r\n")
	}
	if q.header != "" {
		b.WriteString(strings.ReplaceAll(q.header, "\n", "\r\n") + "\r\n")
	}
	if q.body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(q.body))
	}
	b.WriteString("\r\n" + q.body)
	return http.ReadRequest(bufio.NewReader(strings.NewReader(b.String())))
}

func (q raw) do(t testing.TB, h http.Handler) *httptest.ResponseRecorder {
	t.Helper()
	r, err := q.parse()
	if err != nil {
		t.Fatalf("%s %s: %v", q.method, q.target, err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// problemOf checks the shape of a problem document and returns it.
func problemOf(t testing.TB, w *httptest.ResponseRecorder) api.Problem {
	t.Helper()
	var p api.Problem
	dec := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		t.Fatalf("not a problem document: %v: %q", err, w.Body.String())
	}
	h := w.Header()
	for what, ok := range map[string]bool{
		"media type":     h.Get("Content-Type") == api.ProblemType,
		"status":         p.Status == w.Code && p.Code.HTTPStatus() == w.Code,
		"type":           p.Type == "urn:nearside:error:"+string(p.Code),
		"title":          p.Title == http.StatusText(w.Code),
		"detail":         p.Detail != "" && len(p.Detail) < 400,
		"code in list":   api.Codes()[p.Code] != 0,
		"request id":     p.RequestID != "" && p.RequestID == h.Get(api.HeaderRequestID),
		"no CORS":        h.Get("Access-Control-Allow-Origin") == "",
		"nosniff":        h.Get("X-Content-Type-Options") == "nosniff",
		"content length": h.Get("Content-Length") == fmt.Sprint(w.Body.Len()),
	} {
		if !ok {
			t.Errorf("problem document: %s is wrong: status %d, headers %v, body %s", what, w.Code, h, w.Body)
		}
	}
	return p
}
