package httpapi

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/nearside/nearside/region/backup"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

func (f *fake) BackupStamp(context.Context) (registry.Stamp, error) { return f.Stamp(), nil }

func (f *fake) Backup(ctx context.Context) (store.Image, error) {
	if err := f.note(ctx, "backup"); err != nil {
		return store.Image{}, err
	}
	f.backups.Add(1)
	if f.large != nil {
		return *f.large, nil
	}
	return store.Image{Epoch: testEpoch, Revision: 41, Records: []store.Record{{Key: "kv/a", Value: []byte("1"), Revision: 40}}}, nil
}

func TestSnapshotIsABackup(t *testing.T) {
	f := newFake()
	h, err := New(Config{Registry: f, Region: "us-east", Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	defer s.Close()
	defer s.Client().CloseIdleConnections()
	get := func(path string) *http.Response {
		t.Helper()
		resp, err := s.Client().Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := get(api.PathSnapshot)
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != backup.MediaType || resp.Header.Get(api.HeaderEpoch) != testEpoch.String() ||
		resp.Header.Get(api.HeaderRevision) != "41" || resp.Header.Get(api.HeaderSource) != api.SourceStore {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	var got []store.Record
	head, err := backup.Read(resp.Body, func(r store.Record) error { got = append(got, r); return nil })
	if err != nil || head.Region != "us-east" || head.Node != "n1" || head.Epoch != testEpoch || len(got) != 1 || got[0].Key != "kv/a" {
		t.Errorf("%+v %v %v", head, got, err)
	}
	for path, want := range map[string]int{api.PathSnapshot + "?ns=a": 400, api.PathSnapshot + "/x": 404} {
		bad := get(path)
		_, _ = io.Copy(io.Discard, bad.Body)
		_ = bad.Body.Close()
		if bad.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, bad.StatusCode, want)
		}
	}
	f.mu.Lock()
	f.failure = api.Errorf(api.CodeUnavailable, "away")
	f.mu.Unlock()
	away := get(api.PathSnapshot)
	_ = away.Body.Close()
	if away.StatusCode != 503 {
		t.Errorf("while the store is away: %d", away.StatusCode)
	}
}

// P8: a node holds two images at most, however slowly they are taken; the next one is told to come back.
// HEAD loads nothing.
func TestSnapshotsAreBounded(t *testing.T) {
	f := newFake()
	large := store.Image{Epoch: testEpoch, Revision: 41}
	noise := rand.New(rand.NewPCG(1, 2))
	for i := range 40 { // 40 MiB that do not shrink: more than any buffer on the way
		value := make([]byte, 1<<20)
		for j := 0; j+8 <= len(value); j += 8 {
			binary.NativeEndian.PutUint64(value[j:], noise.Uint64())
		}
		large.Records = append(large.Records, store.Record{Key: fmt.Sprintf("kv/%02d", i), Value: value, Revision: 1})
	}
	f.large = &large
	h, err := New(Config{Registry: f, Region: "us-east", Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	ask := func(method string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.URL+api.PathSnapshot, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	slow := []*http.Response{ask("GET"), ask("GET")}
	third := ask("GET")
	if slow[0].StatusCode != 200 || slow[1].StatusCode != 200 || third.StatusCode != 429 || third.Header.Get("Retry-After") == "" {
		t.Errorf("%d, %d, then %d %v", slow[0].StatusCode, slow[1].StatusCode, third.StatusCode, third.Header)
	}
	loads := f.backups.Load()
	if head := ask("HEAD"); head.StatusCode != 200 || head.Header.Get(api.HeaderEpoch) != testEpoch.String() {
		t.Errorf("HEAD: %d %v", head.StatusCode, head.Header)
	}
	if now := f.backups.Load(); now != loads || loads != 2 {
		t.Errorf("%d loads, then %d", loads, now)
	}
	if _, err := io.Copy(io.Discard, slow[0].Body); err != nil {
		t.Fatal(err)
	}
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-again.C {
		if ask("GET").StatusCode == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a place that became free is not given to the next one")
		}
	}
}
