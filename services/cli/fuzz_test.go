package cli

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// FuzzEvents reads whatever a server may stream: never a panic, no event with a line break in
// its name, and data of what was sent only.
func FuzzEvents(f *testing.F) {
	for _, s := range []string{"event: a\nid: 1\ndata: {}\n\n", ": c\n\n", "data\ndata: x\n\n", "data:x\r\n\r\n", "\n\n\n", "event:\ndata"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		size := 0
		_ = readEvents(bytes.NewReader(b), func(e event) error {
			if strings.Contains(e.name+e.id, "\n") {
				t.Errorf("%+v", e)
			}
			size += len(e.data)
			return nil
		})
		if size > len(b) {
			t.Errorf("%d bytes of data in %d", size, len(b))
		}
	})
}

// FuzzProbe: what a --check says is a port and a path, or an error.
func FuzzProbe(f *testing.F) {
	for _, s := range []string{"tcp", "tcp=80", "http=/x", "http=:8080/healthz", "none", "http=:/", "tcp=-1", "http=:99999/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseProbe(s, "10.0.0.1", 80)
		if err == nil && (p.port < 1 || p.port > 65535 || p.kind == "http" && !strings.HasPrefix(p.path, "/")) {
			t.Errorf("%q: %+v", s, p)
		}
	})
}

// FuzzPolicyFile: whatever is in a policy file, it is refused in words, or what was read is read
// the same when it is written down again.
func FuzzPolicyFile(f *testing.F) {
	for _, s := range []string{
		"allowed_regions: [eu-west]\nkeep_warm: 2\nnote: x\n", "policy: {order: [us-east]}\nnote: y\n", "{}", "", "a: 1\n---\nb: 2", "&a [*a]", "1: 2",
		"? [x]\n: y", "\"keep_warm\": 1e999", "policy: null", "stale_limit: 5m", "spill: {start: .nan}", "<<: {note: z}", "note: !!binary aGk=",
	} {
		f.Add([]byte(s))
	}
	cmd := &cobra.Command{Use: "set"}
	f.Fuzz(func(t *testing.T, raw []byte) {
		w, err := parsePolicy(cmd, "p.yaml", raw)
		if err != nil {
			if !strings.Contains(err.Error(), "p.yaml") {
				t.Errorf("the error does not name the file: %v", err)
			}
			return
		}
		again, err := json.Marshal(w)
		if err != nil {
			t.Fatalf("%+v: %v", w, err)
		}
		back, err := parsePolicy(cmd, "again", again)
		if err != nil {
			t.Fatalf("%s is read once, and then not: %v", again, err)
		}
		if twice, _ := json.Marshal(back); !reflect.DeepEqual(again, twice) {
			t.Errorf("%s became %s", again, twice)
		}
	})
}
