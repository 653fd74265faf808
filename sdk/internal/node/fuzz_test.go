package node

import (
	"bufio"
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// FuzzStream reads whatever a registry, or something that took its place, may send: never a
// panic, no frame of an unknown kind, and never more lines than there are.
func FuzzStream(f *testing.F) {
	for _, s := range []string{
		"retry: 1000\n\nevent: synced\ndata: {\"version\":{\"region\":\"us\",\"epoch\":\"1-0000000000000001\",\"revision\":7}}\n\n",
		"id: x\nevent: item\ndata: {\"instance\":{\"id\":\"a\",\"ttl\":1e99}}\r\n\r\n", "data: {}\ndata: {}\n\n", "event: later\ndata: x\n\n",
		": hello\n\n", "event: change\ndata:\n\n", "event\ndata", "event: reset\ndata: {\"kv\":{\"value\":\"!\"}}\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &Watch{body: io.NopCloser(nil), lines: bufio.NewReaderSize(bytes.NewReader(b), 16), quiet: time.Hour, life: time.NewTimer(time.Hour), cancel: func(error) {}}
		defer w.Close()
		lines := 0
		for {
			frame, err := w.Next(func() { lines++ })
			if err != nil {
				break
			}
			switch frame.Kind {
			case api.FrameItem, api.FrameSynced, api.FrameChange, api.FrameReset, api.FrameBookmark, api.FrameReplica:
			default:
				t.Fatalf("a frame of kind %q", frame.Kind)
			}
		}
		if n := bytes.Count(b, []byte("\n")); lines > n {
			t.Errorf("%d lines of %d", lines, n)
		}
	})
}
