package scenarios

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P8, catalogue row 36: metadata of a megabyte, of ten thousand keys, and JSON of a hundred
// thousand levels are refused with a code, in time, before they reach the store.
func TestHugeMetadataIsRefused(t *testing.T) {
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	h := n.Client()
	before, err := h.Region(us)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{}
	for i := range 10_000 {
		keys[fmt.Sprintf("k%d", i)] = "v"
	}
	many, err := json.Marshal(map[string]any{"address": "127.0.0.1", "port": 80, "metadata": keys})
	if err != nil {
		t.Fatal(err)
	}
	few := map[string]string{}
	for i := range api.MaxMetadataKeys + 1 {
		few[fmt.Sprintf("k%d", i)] = "v"
	}
	oneTooMany, err := json.Marshal(map[string]any{"address": "127.0.0.1", "port": 80, "metadata": few})
	if err != nil {
		t.Fatal(err)
	}
	meta := func(v string) string { return `{"address":"127.0.0.1","port":80,"metadata":` + v + `}` }
	for _, tt := range []struct {
		name, body string
		status     []int
	}{
		{"a value of a megabyte", meta(`{"k":"` + strings.Repeat("x", 1<<20) + `"}`), []int{413}},
		{"a value of 200 KiB", meta(`{"k":"` + strings.Repeat("x", 200<<10) + `"}`), []int{400, 422}},
		{"a value of 16 KiB and a byte", meta(`{"k":"` + strings.Repeat("x", api.MaxMetadataBytes) + `"}`), []int{400, 422}},
		{"10,000 keys", string(many), []int{400, 413, 422}},
		{"one key too many", string(oneTooMany), []int{400, 422}},
		{"100,000 levels", meta(strings.Repeat(`{"k":`, 50_000) + "1" + strings.Repeat("}", 50_000)), []int{400, 413, 422}},
		{"levels without an end", meta(strings.Repeat(`[`, 200_000)), []int{400, 413, 422}},
		{"a batch beyond its limit", `{"instances":[` + strings.Repeat(`{"service":"s","id":"i","address":"127.0.0.1","port":80},`, 20_000) + `]}`, []int{413}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			method, path := http.MethodPut, api.PathInstance("web", "huge")
			if strings.HasPrefix(tt.body, `{"instances"`) {
				method, path = http.MethodPost, api.PathBatchRegister
			}
			for _, chunked := range []bool{false, true} {
				var body io.Reader = strings.NewReader(tt.body)
				if chunked {
					body = struct{ io.Reader }{body} // of unknown length
				}
				req, err := http.NewRequest(method, n.URL()+path, body)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", "application/json")
				begun := time.Now()
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatalf("no answer: %v", err)
				}
				answer, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				var p api.Problem
				if err := json.Unmarshal(answer, &p); err != nil || p.Code == "" || p.Detail == "" {
					t.Errorf("answered %d without a problem document: %.100s", resp.StatusCode, answer)
				}
				ok := false
				for _, s := range tt.status {
					ok = ok || s == resp.StatusCode
				}
				if !ok {
					t.Errorf("answered %d %s, want one of %v", resp.StatusCode, p.Code, tt.status)
				}
				t.Logf("%d bytes, chunked %v: %d %s in %s", len(tt.body), chunked, resp.StatusCode, p.Code, time.Since(begun).Round(time.Millisecond))
			}
		})
	}
	after, err := h.Region(us)
	if err != nil || after.Revision != before.Revision {
		t.Errorf("the store's revision went from %d to %d: something was written (%v)", before.Revision, after.Revision, err)
	}
}

// P8, catalogue row 37: a service of 20,000 instances. Lists come in pages, a watch in
// frames, an answer is never larger than its limit, and other regions get a summary of a few.
func TestServiceOf20kInstances(t *testing.T) {
	const count, mostBytes, mostFrame = 20_000, 2 << 20, 64 << 10
	c := cluster.New(t, us, eu)
	c.StartAll()
	n := c.Node(us)
	f := &fleet{service: "large", ttl: time.Hour, h: n.Client(), count: count}
	begun := time.Now()
	f.register(t, 0, count)
	registered := time.Since(begun)

	// Pages.
	begun = time.Now()
	seen := map[api.InstanceID]bool{}
	pages, largest := 0, 0
	for cursor := ""; ; pages++ {
		b, err := f.h.Get(api.PathInstances("large") + "?limit=1000&cursor=" + cursor)
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, len(b))
		var l api.InstanceList
		if err := json.Unmarshal(b, &l); err != nil {
			t.Fatal(err)
		}
		for _, i := range l.Instances {
			if seen[i.ID] {
				t.Fatalf("%s is on two pages", i.ID)
			}
			seen[i.ID] = true
		}
		if cursor = l.Cursor; cursor == "" {
			break
		}
	}
	listed := time.Since(begun)
	if len(seen) != count {
		t.Errorf("the pages have %d of %d instances", len(seen), count)
	}
	for _, path := range []string{api.PathInstances("large"), api.PathInstances("large") + "?limit=5000", api.PathResolve("large"), "/v1/explain/large", api.PathServices} {
		resp, err := http.Get(n.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		t.Logf("%s: %d, %d bytes", path, resp.StatusCode, len(b))
		largest = max(largest, len(b))
	}
	if largest > mostBytes {
		t.Errorf("P8: an answer has %d bytes, more than %d", largest, mostBytes)
	}

	// The stream.
	begun = time.Now()
	resp, err := http.Get(n.URL() + api.PathWatch + "?service=large")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReaderSize(resp.Body, 1<<20)
	items, frame := 0, 0
	for synced := false; !synced; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		frame = max(frame, len(line))
		switch {
		case bytes.HasPrefix(line, []byte("event: item")):
			items++
		case bytes.HasPrefix(line, []byte("event: synced")):
			synced = true
		}
	}
	streamed := time.Since(begun)
	if items != count {
		t.Errorf("the watch began with %d of %d items", items, count)
	}
	if frame > mostFrame {
		t.Errorf("P8: a frame has %d bytes, more than %d", frame, mostFrame)
	}

	// The summary.
	far := c.Node(eu).Client()
	cluster.Within(t, 20*time.Second, "eu-west knows of all of them", func() error {
		r, err := far.Resolve("large")
		if err != nil {
			return err
		}
		if len(r.Endpoints) == 0 || len(r.Endpoints) > api.MaxFailoverSet {
			return fmt.Errorf("it has %d endpoints", len(r.Endpoints))
		}
		return nil
	})
	r, err := far.Resolve("large")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instances: registered in %s, listed in %d pages in %s, watched in %s; largest answer %d bytes, largest frame %d; eu-west holds %d endpoints",
		count, registered.Round(time.Millisecond), pages+1, listed.Round(time.Millisecond), streamed.Round(time.Millisecond), largest, frame, len(r.Endpoints))
}
