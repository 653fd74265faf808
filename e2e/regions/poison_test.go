package regions

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/sdk/api"
)

// P4, P6, P8, P10, P12, test 23 and catalogue row 53: eight hostile regions tell us-east
// everything that is not right, over and over, and hostile readers ask for it. Each of them is kept apart:
// the link to eu-west stays as it is, local answers go on and are as quick as eu-west's own, nothing of theirs is
// shown as another region's, and what was good of theirs stays in use.
func TestPoisonSummary(t *testing.T) {
	t.Parallel() // it waits more than it works
	seed := cluster.Seed(t)
	w := newWorld(t, us, eu)
	w.Node(eu).Start()
	fill(t, w.clients[eu], "orders", 5, nil)
	h := newHostile(t, seed, record(t, w.Node(eu).Federation, eu))
	const hostiles = 8
	for i := range hostiles {
		w.Node(us).Extra = append(w.Node(us).Extra, "--peer", fmt.Sprintf("mars-%d=%s", i, h.URL))
	}
	w.Node(us).Start()
	ours := w.clients[us]
	fill(t, ours, "orders", 5, nil)
	w.awaitAgreement("at the start")
	before, err := w.Node(us).Figures()
	if err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	var asked int
	readers.Go(func() { asked = askBadly(ctx, t, w.Node(us).Federation) })
	var took, elsewhere []time.Duration
	hurt := 0 // looks at which the link to eu-west was not well: a starved machine may lose it for a moment
	hold := cluster.SoakFor(t, 5*time.Second)
	for begun := time.Now(); time.Since(begun) < hold || len(h.missing()) > 0; {
		if time.Since(begun) > hold+patience {
			t.Fatalf("after %s nobody took %v", time.Since(begun), h.missing())
		}
		asking := time.Now()
		r, err := ours.Resolve("orders")
		took = append(took, time.Since(asking))
		if err != nil || len(r.Endpoints) == 0 || r.Endpoints[0].Region != us {
			t.Fatalf("P10: a local resolve beside poisoned peers: %v %+v", err, r.Endpoints)
		}
		asking = time.Now()
		if _, err := w.clients[eu].Resolvable("orders"); err != nil { // which nobody poisons
			t.Fatal(err)
		}
		elsewhere = append(elsewhere, time.Since(asking))
		info, err := w.federation(us)
		if err != nil {
			t.Fatal(err)
		}
		if l, err := link(info, eu); err != nil || l.Services == 0 {
			t.Fatalf("P10: the link to eu-west beside poisoned peers: %v %+v", err, l)
		} else if l.State != "connected" || l.Replica.State != api.AgeFresh {
			hurt++
		}
		pass(5 * time.Millisecond)
	}
	stop()
	readers.Wait()

	fill(t, w.clients[eu], "afterwards", 3, nil)
	w.awaitAgreement("after it")
	after, err := w.Node(us).Figures()
	if err != nil {
		t.Fatal(err)
	}
	info, err := w.federation(us)
	if err != nil {
		t.Fatal(err)
	}
	asQuick(t, "beside poisoned peers", elsewhere, took)
	if hurt*5 > len(took) {
		t.Errorf("P10: at %d of %d looks the link to eu-west was not well", hurt, len(took))
	}
	var refused uint64
	for i := range hostiles {
		r := api.Region(fmt.Sprintf("mars-%d", i))
		l, err := link(info, r)
		if err != nil {
			t.Fatal(err)
		}
		refused += l.Refused
		if l.Refused == 0 && l.LastError == "" {
			t.Errorf("%s was not refused anything: %+v", r, l)
		}
		var list api.InstanceList
		// It may have said just now, and as it should, that it has nothing any more.
		cluster.Within(t, patience, "P7: what is good of "+string(r)+" is used", func() error {
			_, err := ours.Do(http.MethodGet, api.PathInstances("good")+"?region="+string(r), nil, &list)
			if err == nil && len(list.Instances) != 1 {
				err = fmt.Errorf("there are %+v", list.Instances)
			}
			return err
		})
		// Of a bad row nothing may be shown but what was good of it before, which it never was.
		if _, err := ours.Do(http.MethodGet, api.PathInstances("bad")+"?region="+string(r), nil, &list); err == nil {
			for _, e := range list.Instances {
				t.Errorf("P12: an instance of a bad row of %s is used: %+v", r, e)
			}
		}
	}
	for _, r := range []api.Region{us, eu} {
		for _, service := range []string{"good", "bad"} {
			if n, err := w.clients[r].Instances(service); err == nil && len(n.Instances) > 0 {
				t.Errorf("P12: %s has %s of its own: %+v", r, service, n.Instances)
			}
		}
	}
	t.Logf("%d bad streams of %d kinds, %d frames and rows refused; %d bad requests; %d local resolves meanwhile: p50 %s, p99 %s (%s in eu-west), none failed, the link to eu-west well at all but %d; the node before: %s, after: %s",
		h.inputs(), len(poisons), refused, asked, len(took), cluster.Percentile(took, 0.5).Round(10*time.Microsecond), cluster.Percentile(took, 0.99).Round(10*time.Microsecond), cluster.Percentile(elsewhere, 0.99).Round(10*time.Microsecond), hurt, before, after)
	if grew := after.RSS - before.RSS; grew > 256<<20 {
		t.Errorf("P8: the node grew by %d MiB", grew>>20)
	}
}

// record returns what a region's federation says to a new reader within its first heartbeat.
func record(t *testing.T, addr string, origin api.Region) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	url := fmt.Sprintf("http://%s%s?proto=1&max_proto=2&reader=recorder&region=%s", addr, peer.PathStream, origin)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var all bytes.Buffer
	buf := make([]byte, 64<<10)
	for !strings.Contains(all.String(), `"kind":"heartbeat"`) {
		n, err := resp.Body.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v after %.200s", err, all.String())
		}
	}
	b := all.Bytes()
	return b[:bytes.LastIndexByte(b, '\n')+1]
}

// askBadly asks a federation port for everything that it must not give, and returns how
// often it did.
func askBadly(ctx context.Context, t *testing.T, addr string) (asked int) {
	tr := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: tr, Timeout: 5 * time.Second}
	base := "http://" + addr
	type question struct{ method, path, body string }
	stream := peer.PathStream + "?proto=1&max_proto=2&reader=venus&region=us-east"
	questions := []question{
		{"GET", peer.PathStream, ""},
		{"GET", strings.Replace(stream, "venus", "us-east", 1), ""},
		{"GET", strings.Replace(stream, "us-east", "eu-west", 1), ""},
		{"GET", strings.Replace(stream, "proto=1", "proto=77", 1), ""},
		{"GET", strings.Replace(stream, "venus", "../../x", 1), ""},
		{"GET", stream + "&have=us-east/x/1", ""},
		{"GET", stream + strings.Repeat("&have=eu-west/1-0000000000000001/1", 300), ""},
		{"GET", stream + "&digest=zz", ""},
		{"GET", stream + "&term=-1", ""},
		{"GET", stream + "&x=" + strings.Repeat("x", 1<<20), ""},
		{"POST", stream, "x"},
		{"POST", stream, strings.Repeat("x", 4<<20)},
		{"POST", peer.PathAck + "?stream=none", "{}"},
		{"POST", peer.PathAck + "?stream=none", strings.Repeat("[", 1<<20)},
		{"DELETE", peer.PathStream, ""},
		{"GET", "/v1/services", ""},
		{"GET", "/peer/v1/%2e%2e/%2e%2e/etc/passwd", ""},
	}
	for i := 0; ctx.Err() == nil; i++ {
		q := questions[i%len(questions)]
		req, err := http.NewRequestWithContext(ctx, q.method, base+q.path, strings.NewReader(q.body))
		if err != nil {
			t.Error(err)
			return asked
		}
		resp, err := client.Do(req)
		if err == nil {
			b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
			resp.Body.Close()
			if resp.StatusCode < 400 || resp.StatusCode == http.StatusInternalServerError {
				t.Errorf("%s %.100s is answered with %d %.100s", q.method, q.path, resp.StatusCode, b)
			}
		} else if ctx.Err() == nil && len(q.body) < 1<<20 && len(q.path) < 1<<16 { // what is too long may be cut off
			t.Errorf("%s %.100s: %v", q.method, q.path, err)
		}
		asked++
		// A body of a gigabyte that never comes.
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\nx", stream)
			_ = c.Close()
			asked++
		}
		pass(10 * time.Millisecond)
	}
	return asked
}
