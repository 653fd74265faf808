package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	records "github.com/nearside/nearside/region/backup"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/backup"
)

func savedRegion(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	img := store.Image{Epoch: epochEU, Revision: 42, Records: []store.Record{{Key: "kv/default/a", Value: []byte("1"), Revision: 41}}}
	if err := records.Write(&b, "eu-west", "eu-west-1", noon.Add(-90*time.Second), img); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A file is replaced only by a whole one, and only its owner reads it.
func TestSnapshotSave(t *testing.T) {
	whole := savedRegion(t)
	media := map[string]string{"Content-Type": records.MediaType}
	serve := func(r reply) *fakeNode { return newNode(t, map[string]reply{"GET " + api.PathSnapshot: r}) }
	file := filepath.Join(t.TempDir(), "eu.nearside")

	r := run(t, serve(reply{body: whole, header: media}).URL, "snapshot", "save", file)
	wantCode(t, r, ExitOK)
	wantContains(t, "stdout", r.stdout, "epoch 1-00000000000000a1, revision 42")
	wantContains(t, "stdout", r.stdout, "(1m30s ago) by eu-west-1")
	got, err := os.ReadFile(file)
	if err != nil || string(got) != whole {
		t.Fatalf("the file has %d bytes, %v", len(got), err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	r = run(t, serve(reply{body: whole, header: media}).URL, "snapshot", "save", "-")
	wantCode(t, r, ExitOK)
	wantText(t, "stdout", r.stdout, whole)

	for what, c := range map[string]struct {
		reply reply
		code  int
		says  string
	}{
		"broke off":   {reply{body: whole[:len(whole)-5], header: media}, ExitUnreachable, "nothing was replaced"},
		"not allowed": {problemReply(api.Errorf(api.CodeUnauthorized, "a token is needed")), ExitNotAllowed, "token"},
		"store away":  {problemReply(api.Errorf(api.CodeUnavailable, "away")), ExitUnreachable, "away"},
		"no registry": {reply{body: "<html>"}, ExitError, "--addr"},
	} {
		r := run(t, serve(c.reply).URL, "snapshot", "save", file)
		wantCode(t, r, c.code)
		wantContains(t, what+": stderr", r.stderr, c.says)
		if now, err := os.ReadFile(file); err != nil || string(now) != whole {
			t.Errorf("%s: the older file is gone: %v", what, err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSnapshotInspectAndRestore(t *testing.T) {
	dir := t.TempDir()
	file, cut := filepath.Join(dir, "eu.nearside"), filepath.Join(dir, "cut")
	whole := savedRegion(t)
	for name, text := range map[string]string{file: whole, cut: whole[:len(whole)-5]} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const nobody = "http://127.0.0.1:1"
	r := run(t, nobody, "snapshot", "inspect", file)
	wantCode(t, r, ExitOK)
	wantContains(t, "stdout", r.stdout, "checksum   ok")
	wantCode(t, run(t, nobody, "snapshot", "inspect", cut), ExitError)
	wantCode(t, run(t, nobody, "snapshot", "inspect", filepath.Join(dir, "none")), ExitError)

	data := filepath.Join(dir, "data")
	wantCode(t, run(t, nobody, "snapshot", "restore", file), ExitUsage)
	wantCode(t, run(t, nobody, "snapshot", "restore", file, "--data-dir", data, "--region", "EU"), ExitUsage)
	wantCode(t, run(t, nobody, "snapshot", "restore", file, "--data-dir", data, "--store-quota", "1MiB"), ExitUsage)
	wantCode(t, run(t, nobody, "snapshot", "restore", file, "--data-dir", data, "--region", "us-east"), ExitConflict)
	r = run(t, nobody, "snapshot", "restore", file, "--data-dir", data, "--region", "eu-west", "-o", "json")
	wantCode(t, r, ExitOK)
	var res backup.Result
	if err := json.Unmarshal([]byte(r.stdout), &res); err != nil || res.NewEpoch.Generation != 2 || res.DataDir != data || res.Records != 1 {
		t.Errorf("%+v, %v", res, err)
	}
	if !strings.Contains(r.stderr, "--data-dir "+data) {
		t.Errorf("stderr: %s", r.stderr)
	}
	wantCode(t, run(t, nobody, "snapshot", "restore", file, "--data-dir", data), ExitConflict)
}
