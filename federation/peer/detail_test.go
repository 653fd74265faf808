package peer_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

func openDetail(t *testing.T, base string, service string) (*peer.DetailStream, error) {
	t.Helper()
	c := peer.NewClient(nil, nil)
	t.Cleanup(c.CloseIdle)
	s, err := c.OpenDetail(t.Context(), base, peer.Query{Reader: "us-east", Node: "n1", Origin: "eu-west"}, regiontest.Key(service), nil)
	if err == nil {
		t.Cleanup(s.Close)
	}
	return s, err
}

// P6: a detail is all usable instances of a service by id, and each line is the whole of it.
func TestDetail(t *testing.T) {
	src := regiontest.New("eu-west")
	instances := regiontest.Instances("eu-west", "orders", 100)
	instances[7].Status, instances[8].Status, instances[9].Status = api.StatusCritical, api.StatusDraining, api.StatusWarning
	src.SetInstances("orders", instances)
	_, base := door(t, peer.ServerConfig{Source: src})
	s, err := openDetail(t, base, "orders")
	if err != nil {
		t.Fatal(err)
	}
	next := func(n int) *peer.Detail {
		t.Helper()
		for {
			d, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			if d.Total == n { // changes that follow each other may come as one
				return d
			}
		}
	}
	d := next(100)
	if d.Passing != 98 || len(d.Endpoints) != 98 || d.Draining != 1 || d.Epoch != src.Version().Epoch || d.Revision != src.Version().Revision {
		t.Errorf("%d of %d, %d draining, %s/%d", d.Passing, d.Total, d.Draining, d.Epoch, d.Revision)
	}
	for i := 1; i < len(d.Endpoints); i++ {
		if d.Endpoints[i-1].ID >= d.Endpoints[i].ID {
			t.Fatalf("%s before %s", d.Endpoints[i-1].ID, d.Endpoints[i].ID)
		}
	}
	src.Set(3, "other") // is nobody's concern here
	for n := 101; n < 140; n++ {
		src.Set(n, "orders")
	}
	if d = next(139); d.Passing != 139 || d.Endpoints[0].Region != "eu-west" {
		t.Errorf("%d of %d", d.Passing, d.Total)
	}
	if err := src.RaiseEpoch(t.Context(), d.Epoch.Generation); err != nil {
		t.Fatal(err)
	}
	for e := d.Epoch; d.Epoch == e; d = next(139) {
		continue
	}
	src.Set(0, "orders")
	if d = next(0); d.Passing != 0 || len(d.Endpoints) != 0 {
		t.Errorf("%+v", d)
	}
}

// P11: a node tells so many services whole and no more; who goes makes room.
func TestDetailsAreBounded(t *testing.T) {
	src := regiontest.New("eu-west")
	src.Set(1, "orders")
	_, base := door(t, peer.ServerConfig{Source: src})
	var mine []*peer.DetailStream
	for i := range peer.MaxReaderDetails {
		s, err := openDetail(t, base, "orders")
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		mine = append(mine, s)
	}
	var said *api.Error
	if _, err := openDetail(t, base, "orders"); !errors.As(err, &said) || said.Code != api.CodeTooManyRequests || said.Remedy == "" {
		t.Fatalf("one more: %v", err)
	}
	resp := get(t, base+"/peer/v1/detail?proto=2&reader=us-east&region=eu-west&service=orders")
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	for _, region := range []string{"ap-south", "sa-east", "af-south"} {
		for range peer.MaxReaderDetails {
			if resp := get(t, base+"/peer/v1/detail?proto=2&region=eu-west&service=orders&reader="+region); resp.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d", region, resp.StatusCode)
			}
		}
	}
	if resp := get(t, base+"/peer/v1/detail?proto=2&region=eu-west&service=orders&reader=me-west"); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("%d although %d are open", resp.StatusCode, peer.MaxDetails)
	}
	mine[0].Close()
	for { // the server learns of it by and by
		if resp := get(t, base+"/peer/v1/detail?proto=2&region=eu-west&service=orders&reader=me-west"); resp.StatusCode == http.StatusOK {
			break
		}
	}
}

// get sends a plain request; its body is closed with the test.
func get(t *testing.T, url string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// P9: who asks wrongly, or has no right to, is told why; so is the reader of a service that is too large.
func TestDetailRefuses(t *testing.T) {
	src := regiontest.New("eu-west")
	src.Set(1, "orders")
	src.Set(peer.MaxDetailEndpoints+1, "huge")
	fat := regiontest.Instances("eu-west", "fat", 1000)
	for _, i := range fat {
		i.Metadata = map[string]string{"note": strings.Repeat("x", 5000)}
	}
	src.SetInstances("fat", fat)
	var heard atomic.Int64
	heard.Store(time.Now().UnixNano())
	_, base := door(t, peer.ServerConfig{
		Source: src,
		Heard:  func() time.Time { return time.Unix(0, heard.Load()) },
		PeerRegion: func(r *http.Request) (api.Region, error) {
			if who := r.Header.Get("X-Certificate"); who != "" {
				return api.Region(who), nil
			}
			return "", errors.New("no certificate")
		},
	})
	ask := func(who, query string) *api.Error {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/peer/v1/detail?"+query, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Certificate", who)
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
		var p api.Problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			t.Fatal(err)
		}
		return p.Err()
	}
	for _, c := range []struct {
		who, query string
		code       api.Code
	}{
		{"", "proto=2&reader=us-east&region=eu-west&service=orders", api.CodeUnauthorized},
		{"ap-south", "proto=2&reader=us-east&region=eu-west&service=orders", api.CodeForbidden},
		{"us-east", "reader=us-east&region=eu-west&service=orders", api.CodeUnsupported},
		{"us-east", "proto=2&reader=us-east&region=ap-south&service=orders", api.CodeConflict},
		{"us-east", "proto=2&reader=us-east&region=eu-west&origin=ap-south&service=orders", api.CodeUnsupported},
		{"us-east", "proto=2&reader=us-east&region=eu-west&service=or/ders", api.CodeInvalidField},
		{"us-east", "proto=2&reader=us-east&region=eu-west&ns=..&service=orders", api.CodeInvalidField},
		{"us-east", "proto=2&reader=us-east&region=eu-west", api.CodeInvalidField},
		{"us-east", "proto=2&reader=us-east&region=eu-west&service=huge", api.CodeUnsupported},
		{"us-east", "proto=2&reader=us-east&region=eu-west&service=fat", api.CodeUnsupported},
	} {
		if e := ask(c.who, c.query); e == nil || e.Code != c.code || e.Detail == "" {
			t.Errorf("%s %s: %+v", c.who, c.query, e)
		}
	}
	if e := ask("us-east", "proto=2&reader=us-east&region=eu-west&service=orders"); e != nil {
		t.Errorf("%+v", e)
	}
	heard.Store(time.Now().Add(-time.Minute).UnixNano())
	if e := ask("us-east", "proto=2&reader=us-east&region=eu-west&service=orders"); e == nil || e.Code != api.CodeUnavailable {
		t.Errorf("by a federation that does not hear its region: %+v", e)
	}
}

// P9: a reader takes no list that an honest origin does not send.
func TestDetailOfALiar(t *testing.T) {
	var body atomic.Pointer[string]
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", peer.StreamType)
		_, _ = io.WriteString(w, *body.Load())
	}))
	defer h.Close()
	e := `{"id":"a","address":"10.0.0.1","port":80,"region":"eu-west","weight":100,"status":"passing"}`
	const epoch = `"epoch":"1-0000000000000001","revision":7,`
	for _, c := range []struct{ name, line string }{
		{"no JSON", `{"endpoints":`},
		{"no epoch", `{"endpoints":[` + e + `],"total":1,"passing":1}`},
		{"wrong counts", `{` + epoch + `"endpoints":[` + e + `],"total":1,"passing":2}`},
		{"more than there are", `{` + epoch + `"endpoints":[` + e + `],"total":0,"passing":1}`},
		{"the same twice", `{` + epoch + `"endpoints":[` + e + `,` + e + `],"total":2,"passing":2}`},
		{"another region's", `{` + epoch + `"endpoints":[` + strings.Replace(e, "eu-west", "us-east", 1) + `],"total":1,"passing":1}`},
		{"not usable", `{` + epoch + `"endpoints":[` + strings.Replace(e, "passing", "critical", 1) + `],"total":1,"passing":1}`},
		{"no address", `{` + epoch + `"endpoints":[` + strings.Replace(e, "10.0.0.1", "", 1) + `],"total":1,"passing":1}`},
		{"without end", strings.Repeat(" ", replica.MaxFrameBytes+10)},
	} {
		line := c.line + "\n"
		body.Store(&line)
		s, err := openDetail(t, h.URL, "orders")
		if err != nil {
			t.Fatal(err)
		}
		if d, err := s.Next(); !errors.Is(err, replica.ErrMalformed) {
			t.Errorf("%s: %+v, %v", c.name, d, err)
		}
		s.Close()
	}
	// P8: nor does a list of nothing become hundreds of times as much in memory.
	nothing := `{` + epoch + `"endpoints":[` + strings.Repeat("0,", replica.MaxFrameBytes/2-200) + "0]}\n"
	body.Store(&nothing)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if s, err := openDetail(t, h.URL, "orders"); err != nil {
		t.Fatal(err)
	} else if _, err := s.Next(); !errors.Is(err, replica.ErrMalformed) {
		t.Errorf("a list of nothing: %v", err)
	} else {
		s.Close()
	}
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 64<<20 {
		t.Errorf("a list of nothing takes %d MiB", (after.TotalAlloc-before.TotalAlloc)>>20)
	}
	line := `{` + epoch + `"endpoints":[` + e + `],"total":1,"passing":1,"later":"field"}` + "\n"
	body.Store(&line)
	s, err := openDetail(t, h.URL, "orders")
	if err != nil {
		t.Fatal(err)
	}
	if d, err := s.Next(); err != nil || len(d.Endpoints) != 1 {
		t.Errorf("an honest one with a field of later: %+v, %v", d, err)
	}
	if _, err := s.Next(); !errors.Is(err, peer.ErrEnded) && !errors.Is(err, context.Canceled) {
		t.Errorf("at its end: %v", err)
	}
}
