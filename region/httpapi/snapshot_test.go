package httpapi

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/nearside/nearside/region/backup"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

func (f *fake) Backup(ctx context.Context) (store.Image, error) {
	if err := f.note(ctx, "backup"); err != nil {
		return store.Image{}, err
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
