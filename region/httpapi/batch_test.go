package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

func batchOf(t *testing.T, w *httptest.ResponseRecorder) api.BatchResults {
	t.Helper()
	var out api.BatchResults
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 {
		t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
	}
	return out
}

// short is the results in short form.
func short(b api.BatchResults) string {
	var out []string
	for _, r := range b.Results {
		s := fmt.Sprintf("%s/%s %d", r.Service, r.ID, r.Status)
		if r.Namespace != "" {
			s = string(r.Namespace) + "/" + s
		}
		if r.Created {
			s += " created"
		}
		if !r.OK {
			s += " " + string(r.Code)
		}
		if r.Field != "" {
			s += " " + r.Field
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

// Every item has its own outcome, in order, and one bad item fails nobody else.
func TestBatchRegisterAnswersEachItem(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	const at = `"address":"10.0.0.1","port":8080`
	got := batchOf(t, raw{"POST", api.PathBatchRegister, asked, `{"instances":[
		{"service":"orders","id":"a",` + at + `},
		{"service":"orders","id":"orders-1",` + at + `,"incarnation":5},
		{"service":"orders","id":"orders-1",` + at + `},
		{"service":"orders","id":"b","address":"10.0.0.1"},
		{"service":"orders","id":"c",` + at + `,"colour":"red"},
		{"service":"orders","id":"d","address":"10.0.0.1","port":"x"},
		{"service":"users","ns":"shop","id":"a",` + at + `,"tags":["v1"]},
		7, null
	]}`}.do(t, h))
	want := "orders/a 201 created, orders/orders-1 200, orders/orders-1 422 invalid_field id, orders/b 422 invalid_field port, " +
		"orders/c 400 unknown_field colour, orders/d 422 invalid_field port, shop/users/a 201 created, / 422 invalid_field body, / "
	if s := short(got); !strings.HasPrefix(s, want) || got.Failed != 6 || len(got.Results) != 9 {
		t.Errorf("%d failed:\n%s, want\n%s", got.Failed, s, want)
	}
	if got := (raw{"POST", api.PathBatchRegister, asked, `{"instances":[]}`}).do(t, h).Body.String(); got != `{"results":[],"failed":0}`+"\n" {
		t.Errorf("an empty batch: %s", got)
	}
}

// broken panics in the goroutine that calls it.
type broken struct{ *fake }

func (broken) Register(context.Context, api.InstanceKey, api.Registration) (api.Instance, bool, error) {
	panic("boom")
}

func TestBatchHeartbeatsAnswerEachItem(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	got := batchOf(t, raw{"POST", api.PathBatchHeartbeats, asked, `{"heartbeats":[
		{"service":"orders","id":"orders-1"},{"service":"orders","id":"orders-1","incarnation":5},
		{"service":"orders","id":"orders-1","incarnation":4},{"service":"orders","id":"zz"},{"service":"orders","id":"zz","x":1}]}`}.do(t, h))
	want := "orders/orders-1 200, orders/orders-1 200, orders/orders-1 409 stale_incarnation, orders/zz 404 instance_not_found, orders/zz 400 unknown_field x"
	if s := short(got); s != want || got.Failed != 3 || got.Results[2].Incarnation != 5 {
		t.Errorf("%+v:\n%s", got, s)
	}
	// A panic in one item's call is that item's error, and the process lives on.
	ph, log := testDoor(t, broken{newFake()}, nil)
	w := raw{"POST", api.PathBatchRegister, asked, `{"instances":[{"service":"orders","id":"a"}]}`}.do(t, ph)
	if got := batchOf(t, w); got.Results[0].Code != api.CodeInternal || strings.Contains(w.Body.String(), "boom") || !strings.Contains(log.String(), "boom") {
		t.Errorf("%s, log %s", w.Body, log)
	}
}

// only lets its caller touch one service.
type only struct{ service api.ServiceName }

func (o only) Authorize(_ context.Context, a registry.Access) error {
	if a.Service != o.service {
		return api.Errorf(api.CodeForbidden, "not yours")
	}
	return nil
}

// P12: every item is authorized as if it had come alone. P1: what is acknowledged is there.
func TestBatchesAgainstTheRealRegistry(t *testing.T) {
	r, m := realRegistry(t, func(c *registry.Config) { c.Authorizer = only{"orders"} })
	h, _ := testDoor(t, r, nil)
	var items []string
	for i := range 400 {
		items = append(items, fmt.Sprintf(`{"service":"orders","id":"i%d","address":"10.0.0.1","port":8080,"ttl":"60s"}`, i))
	}
	items = append(items, `{"service":"users","id":"a","address":"10.0.0.1","port":8080}`)
	body := `{"instances":[` + strings.Join(items, ",") + `]}`
	got := batchOf(t, raw{"POST", api.PathBatchRegister, asked, body}.do(t, h))
	if got.Failed != 1 || got.Results[400].Code != api.CodeForbidden || !got.Results[399].Created {
		t.Errorf("%d failed, %+v", got.Failed, got.Results[399:])
	}
	img, err := m.Load(t.Context())
	if err != nil || len(img.Records) != 400 {
		t.Errorf("%d records, %v", len(img.Records), err)
	}
	// The same again, after an unknown outcome, is no write and says so.
	again := batchOf(t, raw{"POST", api.PathBatchRegister, asked, body}.do(t, h))
	if now, _ := m.Load(t.Context()); now.Revision != img.Revision || again.Failed != 1 || again.Results[0].Created {
		t.Errorf("revision %d, was %d; %+v", now.Revision, img.Revision, again.Results[0])
	}
	beats := batchOf(t, raw{"POST", api.PathBatchHeartbeats, asked, `{"heartbeats":[{"service":"orders","id":"i7"},{"service":"users","id":"a"}]}`}.do(t, h))
	if s := short(beats); s != "orders/i7 200, users/a 403 forbidden" {
		t.Error(s)
	}
	// Without a token nothing of the batch is anybody's: the request itself is refused.
	token, _ := realRegistry(t, func(c *registry.Config) { c.Authorizer = registry.TokenAccess([32]byte{1}) })
	th, _ := testDoor(t, token, nil)
	for _, path := range []string{api.PathBatchRegister, api.PathBatchHeartbeats} {
		body := map[string]string{api.PathBatchRegister: body, api.PathBatchHeartbeats: `{"heartbeats":[{"service":"orders","id":"a"}]}`}[path]
		w := raw{"POST", path, asked, body}.do(t, th)
		if p := problemOf(t, w); p.Code != api.CodeUnauthorized {
			t.Errorf("%s without a token: %+v", path, p)
		}
	}
}

// realRegistry is a loaded registry on a store in memory; it ends with the test.
func realRegistry(t testing.TB, change func(*registry.Config)) (*registry.Registry, *memstore.Store) {
	t.Helper()
	m, err := memstore.New("us-east")
	if err != nil {
		t.Fatal(err)
	}
	cfg := registry.Config{Region: "us-east", Node: "n1", Store: m}
	change(&cfg)
	r, err := registry.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	<-r.Loaded()
	return r, m
}

// What the quick reader reads it reads as the strict one does.
func FuzzQuickHeartbeats(f *testing.F) {
	for _, s := range []string{
		`{"heartbeats":[]}`, ` { "heartbeats" : [ { "service":"orders" , "id":"a"},{"id":"b","incarnation":7,"ns":"x"} ] } `, `{"heartbeats":[{}]}`, `{"heartbeats":[{"id":"a","load":0},{"load":1000},{"load":7}]}`, `{"heartbeats":[{"load":1001}]}`, `{"heartbeats":[{"load":null}]}`,
		`{"heartbeats":[{"id":"a","id":"b"}]}`, `{"heartbeats":[{"ID":"a"}]}`, `{"heartbeats":[{"incarnation":01}]}`, `{"heartbeats":[{"incarnation":1.0}]}`,
		`{"heartbeats":[{"incarnation":999999999999999999}]}`, `{"heartbeats":[{"incarnation":18446744073709551616}]}`, `{"heartbeats":[{},]}`,
		`{"heartbeats":[{"id":"a",}]}`, `{"heartbeats":[]}x`, `{"heartbeats":[],"heartbeats":[]}`, `{"heartbeats":[{"id":"\\u0041"}]}`, `{"heartbeats":[{"id":"ü"}]}`,
		`{"heartbeats":[{"id":null}]}`, `{"heartbeats":null}`, `{"heartbeats":[{"incarnation":-1}]}`, `{"heartbeats":[{"id":"a"}{"id":"b"}]}`, `{"heartbeats":[,{}]}`, ``, `{`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, ok := quickHeartbeats(body)
		if !ok {
			return
		}
		var want struct {
			Heartbeats []api.BatchHeartbeat `json:"heartbeats"`
		}
		if err := api.UnmarshalStrict(body, &want); err != nil || want.Heartbeats == nil {
			t.Fatalf("%q is read; the strict reader says %v", body, err)
		}
		if !slices.Equal(got, want.Heartbeats) {
			t.Fatalf("%q: %+v, want %+v", body, got, want.Heartbeats)
		}
	})
}

// BenchmarkBatchHeartbeats beats batches of 100 over HTTP on loopback, the clients in the
// same process; the goal is 500,000 instances a second.
func BenchmarkBatchHeartbeats(b *testing.B) {
	r, _ := realRegistry(b, func(*registry.Config) {})
	h, err := New(Config{Registry: r, Region: "us-east", Node: "n1"})
	if err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(h)
	defer srv.Close()
	var body bytes.Buffer
	body.WriteString(`{"heartbeats":[`)
	for i := range 100 {
		key := api.InstanceKey{Service: "orders", ID: api.InstanceID(fmt.Sprintf("orders-%d", i))}
		if _, _, err := r.Register(b.Context(), key, api.Registration{Address: "10.0.0.1", Port: 80, TTL: api.Duration(time.Hour)}); err != nil {
			b.Fatal(err)
		}
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"service":"orders","id":"orders-%d","incarnation":1}`, i)
	}
	body.WriteString(`]}`)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	var sent atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	for range 4 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for sent.Add(1) <= int64(b.N) {
				resp, err := client.Post(srv.URL+api.PathBatchHeartbeats, "application/json", bytes.NewReader(body.Bytes()))
				if err != nil || resp.StatusCode != 200 {
					b.Error(resp, err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)*100/time.Since(began).Seconds(), "instances/s")
}

// P8: a body of a megabyte costs some megabytes to refuse, whatever it holds.
func TestBatchesThatAreAllBraces(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	for what, body := range map[string]string{
		"open braces":     `{"heartbeats":[` + strings.Repeat("{", api.MaxBatchBytes-100),
		"empty items":     `{"heartbeats":[` + strings.Repeat("{},", (api.MaxBatchBytes-100)/3) + "{}]}",
		"empty instances": `{"instances":[` + strings.Repeat("{},", (api.MaxBatchBytes-100)/3) + "{}]}",
	} {
		path := api.PathBatchHeartbeats
		if strings.Contains(body[:20], "instances") {
			path = api.PathBatchRegister
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := raw{method: "POST", target: path, body: body, header: "Content-Type: application/json"}.do(t, h)
		runtime.ReadMemStats(&after)
		got := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d, %d MiB", what, w.Code, got>>20)
		if w.Code < 400 || w.Code >= 500 {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
		if got > 96<<20 {
			t.Errorf("%s cost %d MiB", what, got>>20)
		}
	}
}

// unloaded is a registry that has nothing yet.
type unloaded struct{ *fake }

func (unloaded) Stamp() registry.Stamp { return registry.Stamp{Region: "us-east"} }

// P4: a node without a catalogue has no version to name. It gave batches a 200 of revision 0 and of no epoch, which
// a client would take for a step back.
func TestNothingLoadedNamesNoVersion(t *testing.T) {
	f := newFake()
	f.failure = api.Errorf(api.CodeUnavailable, "the catalogue is not loaded yet")
	h, _ := testDoor(t, unloaded{f}, nil)
	for path, body := range map[string]string{
		api.PathBatchRegister:   `{"instances":[{"service":"orders","id":"a","address":"10.0.0.1","port":80},{"service":"orders"}]}`,
		api.PathBatchHeartbeats: `{"heartbeats":[{"service":"orders","id":"a"},{"service":"orders","id":"b"}]}`,
	} {
		w := raw{"POST", path, asked, body}.do(t, h)
		if w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"unavailable"`) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	w := raw{"GET", api.PathLimits, "", ""}.do(t, h)
	for _, name := range []string{api.HeaderEpoch, api.HeaderRevision, api.HeaderAgeMS, api.HeaderSource} {
		if v, ok := w.Header()[name]; ok {
			t.Errorf("limits: %s: %q", name, v)
		}
	}
	if w.Code != 200 || w.Header().Get(api.HeaderRegion) != "us-east" {
		t.Errorf("limits: %d, %v", w.Code, w.Header())
	}
}
