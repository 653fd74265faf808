package scenarios

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P1, P3, P11, catalogue row 27: SIGTERM under load. The node says that it is not ready before
// it takes no more connections; requests under way are answered, watches end at once and in
// good order, the whole takes 10 s at most with exit code 0, everything acknowledged is there
// afterwards, and what an SDK resolves is never empty. (With several nodes per region the SDK
// has another one to go to; that is shown by the cluster's own stories.)
func TestGracefulStopUnderLoad(t *testing.T) {
	const writers, watchers = 8, 20
	c := cluster.New(t, us)
	n := c.Node(us)
	n.Extra = []string{"--stop-delay", "1s"}
	c.StartAll()
	h := n.Client()
	h.Register("web", "w-1", api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour)})
	sdk := newCaller(t, n, "web")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	var all sync.WaitGroup
	var mu sync.Mutex
	acked := map[api.InstanceID]bool{}
	var unanswered []api.InstanceID // sent, and the connection ended
	var slowest time.Duration
	for w := range writers {
		writer := n.Client()
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := api.InstanceID(fmt.Sprintf("i-%d-%05d", w, i))
				begun := time.Now()
				_, err := writer.Do(http.MethodPut, api.PathInstance("ledger", id), api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour)}, nil)
				mu.Lock()
				slowest = max(slowest, time.Since(begun))
				switch {
				case err == nil:
					acked[id] = true
				case api.CodeOf(err) == api.CodeInternal && (strings.Contains(err.Error(), "EOF") || strings.Contains(err.Error(), "reset")):
					unanswered = append(unanswered, id)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	ended := make(chan error, watchers)
	opened := make(chan struct{}, watchers)
	for range watchers {
		all.Go(func() {
			resp, err := http.Get(n.URL() + api.PathWatch + "?service=web")
			if err != nil {
				ended <- err
				return
			}
			defer resp.Body.Close()
			lines := bufio.NewScanner(resp.Body)
			for lines.Scan() {
				if strings.HasPrefix(lines.Text(), "event: synced") {
					opened <- struct{}{}
				}
			}
			ended <- lines.Err() // nil: the stream's end came in good order
		})
	}
	for range watchers {
		<-opened
	}

	// One asks all along whether the node is ready, each time as a newcomer.
	var unready, refused time.Time
	all.Go(func() {
		newcomer := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		for ctx.Err() == nil && refused.IsZero() {
			resp, err := newcomer.Get(n.URL() + api.PathReadyz)
			switch {
			case err != nil:
				refused = time.Now()
			case resp.StatusCode == http.StatusServiceUnavailable && unready.IsZero():
				unready = time.Now()
			}
			if err == nil {
				resp.Body.Close()
			}
			pass(5 * time.Millisecond)
		}
	})
	pass(500 * time.Millisecond)
	begun := time.Now()
	err := n.Stop()
	took := time.Since(begun)
	good, cut := 0, 0
	for range watchers {
		if err := <-ended; err == nil {
			good++
		} else {
			cut++
		}
	}
	all.Wait()
	cancel()
	t.Logf("stopped in %s (%v); not ready after %s, no more connections after %s; %d of %d watches told in good order; %d registrations acknowledged, %d met a closing connection, slowest %s; %s",
		took.Round(time.Millisecond), err, since(begun, unready), since(begun, refused), good, watchers, len(acked), len(unanswered), slowest.Round(time.Millisecond), sdk)
	if err != nil || took > 10*time.Second {
		t.Errorf("SIGTERM ended the node with %v after %s", err, took)
	}
	if unready.IsZero() || !refused.IsZero() && unready.After(refused) {
		t.Error("a newcomer was turned away before the node said that it is not ready")
	}
	if cut > 0 {
		t.Errorf("P5: %d watches were cut", cut)
	}
	if _, err := net.DialTimeout("tcp", n.HTTP, time.Second); err == nil {
		t.Error("somebody still listens")
	}
	sdk.end(t)
	n.Start()
	for id := range acked {
		if _, err := h.Do(http.MethodGet, api.PathInstance("ledger", id), nil, nil); err != nil {
			t.Fatalf("P1: %s was acknowledged and is not there: %v", id, err)
		}
	}
	// A server may close a connection between two requests while the next is being sent: that one
	// was not under way. One that the node took up, and did not answer, is there now.
	for _, id := range unanswered {
		if _, err := h.Do(http.MethodGet, api.PathInstance("ledger", id), nil, nil); api.CodeOf(err) != api.CodeInstanceNotFound {
			t.Errorf("P1: the registration of %s was under way and cut without an answer: %v", id, err)
		}
	}
}

func since(begun, at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return at.Sub(begun).Round(time.Millisecond).String()
}
