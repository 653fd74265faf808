package cli

import (
	"bytes"
	"strings"
	"testing"
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
