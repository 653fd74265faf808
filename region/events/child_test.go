package events

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nearside/nearside/sdk/api"
)

// A child is this test binary, run again to be killed. It ends with its standard input, so
// that none outlives the test.
const childDir = "NEARSIDE_TEST_EVENTS_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		if err := childWrites(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// childWrites records without end, and says every event that it could read back.
func childWrites(dir string) error {
	l, err := Open(Config{Dir: dir, Region: "eu-west", Node: "n1", SegmentBytes: 64 << 10, TotalBytes: 8 << 20})
	if err != nil {
		return err
	}
	go func() {
		for i := 0; ; i++ {
			l.Record(api.Event{Kind: api.EventRegister, Subject: fmt.Sprintf("orders/o-%d", i), Detail: strings.Repeat("x", i%200)})
			if i%32 == 0 {
				l.Sync() // at the pace of a disk, in small steps
			}
		}
	}()
	out := bufio.NewWriter(os.Stdout)
	return l.Follow(context.Background(), Query{HasAfter: true}, func(f api.EventFrame) error {
		if f.Event != nil {
			fmt.Fprintf(out, "%d %s\n", f.Event.ID, f.Event.Subject)
			return out.Flush()
		}
		return nil
	})
}

// What was read of the log survives kill -9 at any moment, ids are never given twice, and
// the log opens without help (P11).
func TestKill9LosesNothingThatWasRead(t *testing.T) {
	dir := t.TempDir()
	seen := map[uint64]string{}
	killed, torn := 6, 0
	for round := range killed {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed after so many new events, which differ from round to round; a child that says
		// nothing is killed too.
		want, n := 300+71*round, 0
		limit := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		for sc := bufio.NewScanner(out); sc.Scan(); {
			var id uint64
			var subject string
			if _, err := fmt.Sscanf(sc.Text(), "%d %s", &id, &subject); err != nil {
				continue // a line that the kill cut
			}
			old, again := seen[id]
			if again && id > 0 && old != subject {
				t.Fatalf("id %d was given to %s and to %s", id, old, subject)
			}
			seen[id] = subject
			if again {
				continue
			}
			if n++; n == want {
				_ = cmd.Process.Kill()
			}
		}
		limit.Stop()
		_ = cmd.Wait()
		_ = in.Close()
		if n < want {
			t.Fatalf("round %d: the child said %d new events, want %d", round, n, want)
		}
		// The next child reads from the start: it says again what is there.
	}
	l := open(t, Config{Dir: dir})
	have := map[uint64]string{}
	for _, e := range readAll(t, l, Query{HasAfter: true}) {
		have[e.ID] = e.Subject
	}
	for id, subject := range seen {
		if have[id] != subject {
			torn++
			if torn < 5 {
				t.Errorf("event %d (%s) was read and is gone: %q", id, subject, have[id])
			}
		}
	}
	t.Logf("%d kills, %d events read before them, %d lost, %d in the log", killed, len(seen), torn, len(have))
}
