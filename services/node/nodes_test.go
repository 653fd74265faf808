package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/region/httpapi"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// trio is three registries on one store, with real HTTP between them and to their clients.
type trio struct {
	t   testing.TB
	all []*member
}

type member struct {
	*registry.Registry
	name   string
	url    string
	server *httptest.Server
	ended  chan error
	stop   context.CancelFunc
	// dead: it answers nobody, and its store nothing: to the others it is killed.
	dead  atomic.Bool
	cut   context.Context
	sever context.CancelFunc
}

// severed is a node's way to the store until it is cut.
type severed struct {
	store.Store
	m *member
}

func (s severed) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.m.cut, cancel)
	return ctx, func() { stop(); cancel() }
}

func (s severed) Commit(ctx context.Context, ops []store.Op) (uint64, error) {
	if s.m.cut.Err() != nil {
		return 0, store.ErrUnavailable
	}
	ctx, done := s.bound(ctx)
	defer done()
	return s.Store.Commit(ctx, ops)
}

func (s severed) Barrier(ctx context.Context) (uint64, error) {
	if s.m.cut.Err() != nil {
		return 0, store.ErrUnavailable
	}
	ctx, done := s.bound(ctx)
	defer done()
	return s.Store.Barrier(ctx)
}

func (s severed) Watch(ctx context.Context, from uint64, apply func(store.Batch) error, progress func(uint64)) error {
	ctx, done := s.bound(ctx)
	defer done()
	err := s.Store.Watch(ctx, from, apply, progress)
	if s.m.dead.Load() {
		return store.ErrUnavailable
	}
	return err
}

func (s severed) Epoch(ctx context.Context) (api.Epoch, error) {
	if s.m.cut.Err() != nil {
		return api.Epoch{}, store.ErrUnavailable
	}
	ctx, done := s.bound(ctx)
	defer done()
	return s.Store.Epoch(ctx)
}

func startTrio(t testing.TB, open func(t testing.TB) func() store.Store) *trio {
	t.Helper()
	tr := &trio{t: t}
	next := open(t)
	for i := range 3 {
		m := &member{name: fmt.Sprintf("n%d", i+1), ended: make(chan error, 1)}
		m.cut, m.sever = context.WithCancel(context.Background())
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m.url = "http://" + l.Addr().String()
		caller := &nodeCaller{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}, scheme: "http"}
		m.Registry, err = registry.New(registry.Config{
			Region: "eu-west", Node: m.name, Store: severed{next(), m}, Addresses: []string{m.url}, Nodes: caller,
		})
		if err != nil {
			t.Fatal(err)
		}
		door, err := httpapi.New(httpapi.Config{Registry: m.Registry, Region: "eu-west", Node: m.name})
		if err != nil {
			t.Fatal(err)
		}
		m.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if m.dead.Load() {
				panic(http.ErrAbortHandler)
			}
			door.ServeHTTP(w, r)
		}))
		m.server.Listener.Close()
		m.server.Listener = l
		m.server.Start()
		ctx, cancel := context.WithCancel(context.Background())
		m.stop = cancel
		go func() { m.ended <- m.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-m.ended; err != nil {
				t.Errorf("Run: %v", err)
			}
			m.server.Close()
			caller.client.CloseIdleConnections()
			m.sever()
		})
		tr.all = append(tr.all, m)
	}
	tr.until("all nodes are ready", 60*time.Second, func() bool {
		for _, m := range tr.all {
			if !m.Readiness().Ready {
				return false
			}
		}
		return true
	})
	return tr
}

// until waits for a condition, which it looks at a hundred times a second.
func (tr *trio) until(what string, patience time.Duration, holds func() bool) {
	tr.t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	end := time.After(patience)
	for !holds() {
		select {
		case <-look.C:
		case <-end:
			for _, m := range tr.all {
				tr.t.Logf("%s: %+v", m.name, m.Readiness().Checks)
			}
			tr.t.Fatalf("waited %s in vain until %s", patience, what)
		}
	}
}

// owner returns who owns liveness as m sees it.
func (tr *trio) owner(m *member) *member {
	info, _, err := m.RegionInfo(context.Background(), "eu-west")
	if err != nil {
		tr.t.Fatal(err)
	}
	for _, x := range tr.all {
		if x.name == info.Liveness.Owner && info.Liveness.Reached {
			return x
		}
	}
	return nil
}

// beat sends heartbeats of i0 to i(n-1) to a node; it returns false when not all count.
func (m *member) beat(client *http.Client, n int) bool { return m.send(client, beats(n)) }

func beats(n int) []byte {
	var b api.Batch
	for i := range n {
		b.Heartbeats = append(b.Heartbeats, api.BatchHeartbeat{Service: "orders", ID: api.InstanceID(fmt.Sprintf("i%d", i))})
	}
	body, _ := json.Marshal(b)
	return body
}

func (m *member) send(client *http.Client, body []byte) bool {
	resp, err := client.Post(m.url+api.PathBatchHeartbeats, "application/json", bytes.NewReader(body))
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK && bytes.Contains(answer, []byte(`"failed":0`))
}

func (m *member) instances(t testing.TB) int {
	list, _, err := m.ListInstances(context.Background(), registry.InstancesQuery{Service: "orders", Limit: api.MaxListLimit})
	if err != nil {
		t.Error(err)
	}
	return len(list.Instances)
}

func memoryStore(t testing.TB) func() store.Store {
	s, err := memstore.New("eu-west")
	if err != nil {
		t.Fatal(err)
	}
	return func() store.Store { return s }
}

// etcdStore gives every node a client of its own to one real etcd.
func etcdStore(t testing.TB) func() store.Store {
	n, err := etcdnode.Start(t.Context(), etcdnode.Config{Region: "eu-west", Node: "store", DataDir: filepath.Join(t.TempDir(), "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return func() store.Store {
		s, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: []string{n.Endpoint()}, Region: "eu-west"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
}

var stores = map[string]func(testing.TB) func() store.Store{"memory": memoryStore, "etcd": etcdStore}

// P1, P2, P11: three nodes with real HTTP between them, over memory and over a real etcd. The
// owner is killed while clients beat at all nodes; nobody is lost, and another node takes over.
// Then the next owner stops in good order.
func TestOwnerKilledOverHTTP(t *testing.T) {
	t.Parallel() // it waits more than it works
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 200
			tr := startTrio(t, open)
			for i := range n {
				_, _, err := tr.all[i%3].Register(t.Context(), api.InstanceKey{Namespace: "default", Service: "orders", ID: api.InstanceID(fmt.Sprintf("i%d", i))},
					api.Registration{Address: "10.0.0.1", Port: 80, TTL: api.Duration(5 * time.Second)})
				if err != nil {
					t.Fatal(err)
				}
			}
			// One client per node, who goes to the next node when its own cannot.
			ctx, stop := context.WithCancel(t.Context())
			var clients sync.WaitGroup
			client := &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second}
			defer client.CloseIdleConnections()
			var worst atomic.Int64 // without any acknowledged round
			for k := range 3 {
				clients.Go(func() {
					last := time.Now()
					every := time.NewTicker(500 * time.Millisecond)
					defer every.Stop()
					for ctx.Err() == nil {
						for try := range 3 {
							if tr.all[(k+try)%3].beat(client, n) {
								worst.Store(max(worst.Load(), int64(time.Since(last))))
								last = time.Now()
								break
							}
						}
						select {
						case <-every.C:
						case <-ctx.Done():
						}
					}
				})
			}
			was := tr.owner(tr.all[0])
			tr.until("there is an owner", 10*time.Second, func() bool { was = tr.owner(tr.all[0]); return was != nil })
			was.dead.Store(true)
			was.sever()
			killed := time.Now()
			var rest []*member
			for _, m := range tr.all {
				if m != was {
					rest = append(rest, m)
				}
			}
			var next *member
			tr.until("both others know a new owner", 30*time.Second, func() bool {
				next = tr.owner(rest[0])
				return next != nil && next != was && tr.owner(rest[1]) == next
			})
			took := time.Since(killed)
			tr.until("everyone would be overdue by the old owner's knowledge", 30*time.Second, func() bool { return time.Since(killed) > 9*time.Second })
			for _, m := range rest {
				if got := m.instances(t); got != n {
					t.Errorf("node %s lists %d of %d", m.name, got, n)
				}
			}
			next.stop()
			stopped := time.Now()
			last := rest[0]
			if last == next {
				last = rest[1]
			}
			tr.until("the last one owns", 30*time.Second, func() bool { return tr.owner(last) == last })
			t.Logf("killed: another node owns, and is reached, %s later; stopped: %s later; at most %s between two acknowledged rounds of a client; 0 of %d evicted",
				took.Round(10*time.Millisecond), time.Since(stopped).Round(10*time.Millisecond), time.Duration(worst.Load()).Round(10*time.Millisecond), n)
			stop()
			clients.Wait()
			if got := last.instances(t); got != n {
				t.Errorf("%d of %d in the end", got, n)
			}
		})
	}
}

// P12: a report goes to a node whose certificate names this region, and to no other: neither the token
// nor a heartbeat reaches a stranger.
func TestReportsGoToThisRegionOnly(t *testing.T) {
	a := newAuthority(t)
	var reached atomic.Int64
	serve := func(region string) string {
		cert, key := a.issue(region, region+regionSuffix)
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			reached.Add(1)
			if r.Header.Get("Authorization") != "Bearer a-token-of-this-region" || r.URL.Path != api.PathNodeReport("eu-west-1") {
				t.Errorf("%s with %q", r.URL, r.Header)
			}
			_, _ = io.WriteString(w, `{"term":7,"epoch":"","revision":3,"protection":{}}`)
		}))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	cert, key := a.issue("own", "eu-west"+regionSuffix)
	token := filepath.Join(a.dir, "token")
	if err := os.WriteFile(token, []byte("a-token-of-this-region\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Region: "eu-west", Node: "eu-west-1", TLSCert: cert, TLSKey: key, TLSCA: a.ca(), TokenFile: token,
		EtcdEndpoints: []string{"http://127.0.0.1:2379"}, DataDir: t.TempDir(),
	}
	if err := cfg.Normalize(); err != nil {
		t.Fatal(err)
	}
	secure, err := cfg.tlsParts()
	if err != nil {
		t.Fatal(err)
	}
	caller, err := cfg.nodes(secure)
	if err != nil {
		t.Fatal(err)
	}
	defer caller.client.CloseIdleConnections()
	own, other := serve("eu-west"), serve("us-east")
	if got, err := caller.Report(t.Context(), "eu-west-1", "eu-west-2", own, api.NodeReport{}); err != nil || got.Term != 7 {
		t.Errorf("%+v, %v", got, err)
	}
	before := reached.Load()
	for what, address := range map[string]string{"another region": other, "no TLS": strings.Replace(own, "https", "http", 1)} {
		if _, err := caller.Report(t.Context(), "eu-west-1", "eu-west-2", address, api.NodeReport{}); err == nil {
			t.Errorf("%s was believed", what)
		} else {
			t.Logf("%s: %v", what, err)
		}
	}
	if reached.Load() != before || before != 1 {
		t.Errorf("%d requests", reached.Load())
	}
}

func TestNodesNeedATokenFile(t *testing.T) {
	for what, tt := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no token": {func(c *Config) { c.TokenFile = "" }, "--token-file"},
		"no CA":    {func(c *Config) { c.TLSCA = "" }, "--tls-ca"},
		"dev":      {func(c *Config) { *c = Config{Region: c.Region, Dev: true, EtcdEndpoints: c.EtcdEndpoints} }, ""},
		"alone":    {func(c *Config) { c.TokenFile, c.TLSCA, c.EtcdEndpoints = "", "", nil }, ""},
	} {
		c := Config{
			Region: "eu-west", TLSCert: "a.pem", TLSKey: "a.key", TLSCA: "ca.pem", TokenFile: "token",
			EtcdEndpoints: []string{"http://127.0.0.1:2379"}, Roles: []string{"region"},
		}
		tt.change(&c)
		err := c.Normalize()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// P1, P2: a node that is the first of a cluster takes part in the election from its start. The others
// are added while it runs; if it owned liveness without a record, it would evict their instances.
func TestAClusterOfOneIsNotAlone(t *testing.T) {
	for what, tt := range map[string]struct {
		cfg  Config
		want bool
	}{
		"a cluster of one":   {Config{Cluster: []string{"eu-west-1=127.0.0.1:7403"}}, true},
		"a cluster of three": {Config{Cluster: []string{"eu-west-1=127.0.0.1:7403", "b=127.0.0.1:7413", "c=127.0.0.1:7423"}}, true},
		"an external etcd":   {Config{EtcdEndpoints: []string{"http://127.0.0.1:2379"}}, true},
		"a single node":      {Config{}, false},
	} {
		c := tt.cfg
		c.Region, c.Node, c.Dev, c.Roles = "eu-west", "eu-west-1", true, []string{"region"}
		if err := c.Normalize(); err != nil {
			t.Fatal(err)
		}
		secure, err := c.tlsParts()
		if err != nil {
			t.Fatal(err)
		}
		nodes, err := c.nodes(secure)
		if err != nil || (nodes != nil) != tt.want {
			t.Errorf("%s: %v, %v", what, nodes, err)
		}
	}
}

// BenchmarkBatchHeartbeats is batches of 100 and 1,000 heartbeats over HTTP, at the owner and
// at another node, which forwards them.
func BenchmarkBatchHeartbeats(b *testing.B) {
	const n = 10_000
	tr := startTrio(b, memoryStore)
	var wg sync.WaitGroup
	for k := range 100 {
		wg.Go(func() {
			for i := k; i < n; i += 100 {
				_, _, err := tr.all[0].Register(context.Background(), api.InstanceKey{Namespace: "default", Service: "orders", ID: api.InstanceID(fmt.Sprintf("i%d", i))},
					api.Registration{Address: "10.0.0.1", Port: 80, TTL: api.Duration(time.Minute)})
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	o := tr.owner(tr.all[0])
	other := tr.all[0]
	if other == o {
		other = tr.all[1]
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	for where, m := range map[string]*member{"owner": o, "other": other} {
		for _, size := range []int{100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", where, size), func(b *testing.B) {
				body := beats(size)
				b.SetParallelism(8)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if !m.send(client, body) {
							b.Error("a heartbeat did not count")
						}
					}
				})
				b.ReportMetric(float64(b.N)*float64(size)/b.Elapsed().Seconds(), "instances/s")
			})
		}
	}
}
