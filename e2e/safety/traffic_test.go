// Package safety holds the tests that look for broken promises instead of telling a story:
// random traffic and random faults against real processes, and checkers that know nothing
// of the product but its promises. Every test prints its seed and its figures; NEARSIDE_SEED
// replays its choices, NEARSIDE_SOAK=30m makes it long.
package safety

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

const (
	home       = api.Region("us-east")
	clients    = 8
	ids        = 20
	callLimit  = 2 * time.Second
	markerName = "zz-end" // the last registration of a service in a round
)

// services of the traffic; an id belongs to one of them.
var services = []api.ServiceName{"ledger-a", "ledger-b"}

// lasting returns how long a test goes on: short, or as NEARSIDE_SOAK says. A test that runs
// others in processes of their own bounds them by NEARSIDE_ATTEMPT.
func lasting(t testing.TB, short time.Duration) time.Duration {
	t.Helper()
	if v := os.Getenv("NEARSIDE_ATTEMPT"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	return cluster.SoakFor(t, short)
}

// pause returns after d, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// kind of a call.
type kind byte

const (
	register   kind = 'R'
	deregister kind = 'D'
	read       kind = 'G' // strong
)

// call is one request, when it was under way, and what came of it.
type call struct {
	client      int
	kind        kind
	key         api.InstanceKey
	incarnation uint64 // asked for; 0 = none
	value       string // of register; found by read

	begun, ended time.Duration // ended is only told of what was answered
	status       int           // 0 = nobody knows what came of it
	found        uint64        // incarnation in the answer
	revision     uint64        // of the instance in the answer
	seen         uint64        // Nearside-Revision of the answer
	before       uint64        // newest revision that this client had seen of that node when it began
}

func (c call) String() string {
	return fmt.Sprintf("client %d %c %s incarnation %d %s -> %d incarnation %d revision %d", c.client, c.kind, c.key.ID, c.incarnation, c.value, c.status, c.found, c.revision)
}

// traffic is some clients that register, deregister and read the ids of one round.
type traffic struct {
	start  time.Time
	round  int
	number sync.Mutex // guards newest, repeats
	newest map[api.InstanceID]uint64
	last   map[api.InstanceID]call

	mu      sync.Mutex
	history []call
	refused int // never sent, or reads that failed
}

func newTraffic(start time.Time, round int) *traffic {
	return &traffic{start: start, round: round, newest: map[api.InstanceID]uint64{}, last: map[api.InstanceID]call{}}
}

func (tr *traffic) key(n int) api.InstanceKey {
	return api.InstanceKey{Service: services[n%len(services)], ID: api.InstanceID(fmt.Sprintf("r%d-%02d", tr.round, n))}
}

func (tr *traffic) add(c call) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.history = append(tr.history, c)
}

// calls returns what was recorded.
func (tr *traffic) calls() []call {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.history)
}

// choose makes up a client's next call.
func (tr *traffic) choose(rng *rand.Rand, client, n int) call {
	c := call{client: client, kind: read, key: tr.key(rng.IntN(ids))}
	tr.number.Lock()
	defer tr.number.Unlock()
	newest := tr.newest[c.key.ID]
	older := func() uint64 { return max(1, newest-min(newest, 1+rng.Uint64N(3))) }
	switch p := rng.IntN(100); {
	case p < 35:
	case p < 60: // starts anew, or says something new of itself
		c.kind, c.value = register, fmt.Sprintf("%d.%d", client, n)
		if rng.IntN(2) == 0 || newest == 0 {
			newest++
			tr.newest[c.key.ID] = newest
		}
		c.incarnation = newest
		tr.last[c.key.ID] = c
	case p < 68: // an older process
		c.kind, c.value, c.incarnation = register, fmt.Sprintf("%d.%d", client, n), older()
	case p < 74: // somebody's newest registration again
		if again, ok := tr.last[c.key.ID]; ok {
			c.kind, c.value, c.incarnation = register, again.value, again.incarnation
		}
	case p < 90:
		c.kind = deregister
		if rng.IntN(3) > 0 {
			c.incarnation = newest
		}
	default:
		c.kind, c.incarnation = deregister, older()
	}
	return c
}

// client sends calls until ctx ends, each to one of bases.
func (tr *traffic) client(ctx context.Context, id int, seed uint64, bases ...string) {
	rng := rand.New(rand.NewPCG(seed, uint64(tr.round<<8|id)))
	transport := &http.Transport{MaxIdleConnsPerHost: 2}
	defer transport.CloseIdleConnections()
	h := &http.Client{Timeout: callLimit, Transport: transport}
	seen := map[string]uint64{} // by base: a node may be behind another one
	for n := 0; ctx.Err() == nil; n++ {
		c := tr.choose(rng, id, n)
		base := bases[rng.IntN(len(bases))]
		c.before = seen[base]
		sent := tr.do(h, base, &c)
		seen[base] = max(seen[base], c.seen)
		switch {
		case !sent || c.kind == read && c.status == 0:
			tr.mu.Lock()
			tr.refused++
			tr.mu.Unlock()
			pause(ctx, 25*time.Millisecond)
		default:
			tr.add(c)
			if c.status == 0 {
				pause(ctx, 25*time.Millisecond)
			}
		}
		pause(ctx, time.Duration(rng.IntN(4))*time.Millisecond)
	}
}

// do makes a call; false when it was certainly never sent.
func (tr *traffic) do(h *http.Client, base string, c *call) (sent bool) {
	path := base + api.PathInstance(c.key.Service, c.key.ID)
	method, body := http.MethodGet, io.Reader(nil)
	switch c.kind {
	case read:
		path += "?consistency=strong"
	case register:
		method = http.MethodPut
		b, err := json.Marshal(api.Registration{
			Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour), Incarnation: c.incarnation, Metadata: map[string]string{"v": c.value},
		})
		if err != nil {
			panic(err)
		}
		body = bytes.NewReader(b)
	case deregister:
		method = http.MethodDelete
		if c.incarnation > 0 {
			path += "?incarnation=" + strconv.FormatUint(c.incarnation, 10)
		}
	}
	req, err := http.NewRequest(method, path, body)
	if err != nil {
		panic(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	c.begun = time.Since(tr.start)
	resp, err := h.Do(req)
	if err != nil {
		var dial *net.OpError
		return !errors.As(err, &dial) || dial.Op != "dial"
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return true
	}
	var said struct {
		Incarnation uint64            `json:"incarnation"`
		Revision    uint64            `json:"revision"`
		Metadata    map[string]string `json:"metadata"`
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusConflict:
		if json.Unmarshal(answer, &said) != nil {
			return true
		}
	case http.StatusNoContent, http.StatusNotFound:
	default:
		return true // 503, 504: it may have happened or not
	}
	c.ended = time.Since(tr.start)
	c.status, c.found, c.revision = resp.StatusCode, said.Incarnation, said.Revision
	c.seen, _ = strconv.ParseUint(resp.Header.Get(api.HeaderRevision), 10, 64)
	if c.kind == read {
		c.value = said.Metadata["v"]
	} else if c.kind == register && resp.StatusCode < 300 && said.Metadata["v"] != c.value {
		c.status = -1 // the model knows no such answer
	}
	return true
}

// run lets the clients go while faults says so, then reads every id once more and returns
// where the region stood after that. Half of the clients go through a relay; of several nodes
// every third client asks another one each time.
func (tr *traffic) run(t *testing.T, w *world, faults func()) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	for id := range clients {
		bases := w.bases(id%2 == 0)
		if i := id % (len(bases) + 1); i < len(bases) {
			bases = bases[i : i+1]
		}
		all.Go(func() { tr.client(ctx, id, w.seed, bases...) })
	}
	faults()
	w.heal()
	stop()
	all.Wait()
	h := &http.Client{Timeout: callLimit}
	defer h.CloseIdleConnections()
	for n := range ids {
		c := call{client: clients, kind: read, key: tr.key(n)}
		cluster.Within(t, 15*time.Second, "a strong read of "+string(c.key.ID), func() error {
			if tr.do(h, w.nodes[n%len(w.nodes)].URL(), &c); c.status == 0 {
				return errors.New("no answer")
			}
			return nil
		})
		tr.add(c)
	}
}
