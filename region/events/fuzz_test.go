package events

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// Whatever a segment holds, reading it neither fails nor gives what was not written whole,
// and the log goes on behind it (P11).
func FuzzSegment(f *testing.F) {
	sound := threeFrames()
	f.Add(sound)
	f.Add(sound[:len(sound)-3])
	f.Add(append([]byte{1, 0, 0, 0}, sound...))
	f.Add(bytes.Repeat([]byte{0}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		offset := 0
		end, _ := readFrames(b, func(at int, fr frame) bool {
			if at < offset || len(fr.payload) == 0 || len(fr.payload) > maxPayload {
				t.Fatalf("a frame at %d with %d bytes", at, len(fr.payload))
			}
			again := appendFrame(nil, fr)
			if !bytes.Equal(again, b[at:at+len(again)]) {
				t.Fatalf("the frame at %d is not what is stored", at)
			}
			offset = at + len(again)
			return true
		})
		if end < offset || end > len(b) {
			t.Fatalf("ends at %d of %d", end, len(b))
		}

		path := filepath.Join(t.TempDir(), "000000000001.events")
		if err := os.WriteFile(path, append([]byte(magic), b...), 0o600); err != nil {
			t.Fatal(err)
		}
		s, torn, _, err := openSegment(path, 1, 1<<20)
		if err != nil || s.size+torn != int64(len(magic)+len(b)) || s.size != int64(len(magic)+end) {
			t.Fatalf("%+v, torn %d: %v", s, torn, err)
		}
		last := uint64(0)
		err = s.frames(s.seek(0, 0), func(fr frame) bool {
			last = max(last, fr.id)
			return true
		})
		if err != nil || last != s.last {
			t.Fatalf("reading ends at %d, opening at %d: %v", last, s.last, err)
		}
	})
}

// The log goes on behind whatever it finds, with ids above all that are there.
func TestGoesOnBehindAnything(t *testing.T) {
	for name, b := range map[string][]byte{"empty": nil, "sound": threeFrames(), "torn": threeFrames()[:100], "zeros": make([]byte, 100), "junk": []byte("junk")} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "000000000001.events"), append([]byte(magic), b...), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			l, err := Open(Config{Dir: dir, Region: "eu-west", Node: "n1"})
			if err != nil {
				t.Fatal(err)
			}
			l.Record(api.Event{Kind: api.EventStatus, Subject: "orders/o-1"})
			l.Sync()
			list, err := l.Read(t.Context(), Query{Limit: 1})
			if err != nil || len(list.Events) != 1 || list.Events[0].ID != list.Last {
				t.Fatalf("%s: %+v, %v", name, list, err)
			}
			last := uint64(0)
			for _, e := range readAll(t, l, Query{HasAfter: true}) {
				if e.ID <= last {
					t.Fatalf("%s: id %d after %d", name, e.ID, last)
				}
				last = e.ID
			}
			if last != list.Last {
				t.Fatalf("%s: reading ends at %d, not %d", name, last, list.Last)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func threeFrames() (b []byte) {
	for i := range uint64(3) {
		payload := fmt.Sprintf(`{"id":%d,"kind":"evict","subject":"orders/o-1"}`, i+1)
		b = appendFrame(b, frame{id: i + 1, at: 1_700_000_000_000, payload: []byte(payload)})
	}
	return b
}

func BenchmarkRecordToDisk(b *testing.B) {
	l, err := Open(Config{Dir: b.TempDir(), Region: "eu-west", Node: "n1", Queue: 1 << 16})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	e := api.Event{Kind: api.EventRegister, Subject: "orders/orders-12345", Actor: "client 10.0.0.9", Detail: "10.0.0.9:8080, ttl 15s, incarnation 1"}
	n := 0
	for b.Loop() {
		l.Record(e)
		if n++; n%4096 == 0 {
			l.Sync()
		}
	}
	l.Sync()
	if l.lost.Load() > 0 {
		b.Fatalf("%d dropped", l.lost.Load())
	}
}
