package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

func open(t *testing.T, cfg Config) *Log {
	t.Helper()
	cfg.Region, cfg.Node = "eu-west", "n1"
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// readAll reads page after page.
func readAll(t *testing.T, l *Log, q Query) []api.Event {
	t.Helper()
	var out []api.Event
	for {
		page, err := l.Read(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, page.Events...)
		if page.Cursor == "" {
			return out
		}
		q.Cursor = page.Cursor
	}
}

func ids(events []api.Event) []uint64 {
	var out []uint64
	for _, e := range events {
		out = append(out, e.ID)
	}
	return out
}

func diskBytes(t *testing.T, dir string) int64 {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}

// Whatever is recorded, in whatever portions, over whatever restarts, is read back in
// order, by every query, and by pages of every size.
func TestAppendReadRotateReopen(t *testing.T) {
	for round := range 2 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, uint64(round)))
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			cfg := Config{Dir: t.TempDir(), SegmentBytes: 16 << 10, TotalBytes: 4 << 20, Memory: 1 + rng.IntN(300)}
			l := open(t, cfg)
			var model []api.Event
			at := time.Now() // as the log keeps nothing older than its age
			for range 40 {
				switch rng.IntN(6) {
				case 0:
					if err := l.Close(); err != nil {
						t.Fatal(err)
					}
					l = open(t, cfg)
				default:
					for range rng.IntN(100) {
						at = at.Add(time.Duration(rng.IntN(3000)-200) * time.Millisecond) // clocks jump
						e := api.Event{
							Time: at, Kind: api.EventKinds[rng.IntN(len(api.EventKinds)-1)], Revision: rng.Uint64(),
							Subject: fmt.Sprintf("s%d/i%d", rng.IntN(4), rng.IntN(9)), Actor: "client ::1", Cause: api.EventCause{Kind: api.BecauseRequest},
							Detail: strings.Repeat("é\"", rng.IntN(200)),
						}
						l.Record(e)
						model = append(model, e)
					}
					l.Sync()
				}
			}
			l.Sync()
			all := readAll(t, l, Query{HasAfter: true, Limit: 50 + rng.IntN(500)})
			if len(all) != len(model) {
				t.Fatalf("%d events of %d", len(all), len(model))
			}
			for i, e := range all {
				m := &model[i]
				if e.ID != uint64(i+1) || e.Kind != m.Kind || e.Subject != m.Subject || e.Revision != m.Revision || e.Region != "eu-west" ||
					!e.Time.Equal(m.Time.Truncate(time.Millisecond)) || e.Cause.Ref >= e.ID {
					t.Fatalf("event %d is %+v, recorded was %+v", i, e, *m)
				}
			}
			for range 40 {
				q := Query{Limit: 50 + rng.IntN(400)}
				if rng.IntN(2) == 0 {
					q.Kinds = []api.EventKind{api.EventEvict, api.EventLinkUp}
				}
				if rng.IntN(2) == 0 {
					q.Subject = fmt.Sprintf("s%d", rng.IntN(5))
				}
				tail := false
				switch rng.IntN(3) {
				case 0:
					q.HasAfter, q.After = true, uint64(rng.IntN(len(all)+1))
				case 1:
					q.Since = all[rng.IntN(len(all))].Time
				default:
					tail = true
				}
				var want []uint64
				for _, e := range all {
					if e.ID > q.After && (q.Since.IsZero() || !e.Time.Before(q.Since)) && api.MatchesSubject(q.Subject, e.Subject) &&
						(q.Kinds == nil || slices.Contains(q.Kinds, e.Kind)) {
						want = append(want, e.ID)
					}
				}
				if tail {
					want = want[max(0, len(want)-q.Limit):]
				}
				if got := ids(readAll(t, l, q)); !slices.Equal(got, want) {
					t.Fatalf("query %+v gave %v, want %v", q, got, want)
				}
			}
		})
	}
}

// P8: the log never takes more than its bound, and its newest events are always there.
func TestSizeIsBounded(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), SegmentBytes: 32 << 10, TotalBytes: 256 << 10, Memory: 16}
	l := open(t, cfg)
	most := int64(0)
	for i := range 4_000 {
		l.Record(api.Event{Kind: api.EventStatus, Subject: "orders/o-1", Detail: strings.Repeat("d", 400)})
		if i%100 == 99 {
			l.Sync()
			most = max(most, diskBytes(t, cfg.Dir))
		}
	}
	if most > cfg.TotalBytes || most < cfg.TotalBytes/2 {
		t.Errorf("%d bytes on disk at most, the bound is %d", most, cfg.TotalBytes)
	}
	list, err := l.Read(t.Context(), Query{HasAfter: true, After: 1})
	if err != nil || !list.Gap || list.First <= 2 || list.Last != 4_000 || list.Events[0].ID != list.First {
		t.Errorf("first %d, last %d, gap %v, %v", list.First, list.Last, list.Gap, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// A lower bound counts when the log is opened.
	cfg.TotalBytes = 64 << 10
	l = open(t, cfg)
	if n := diskBytes(t, cfg.Dir); n > cfg.TotalBytes {
		t.Errorf("%d bytes after reopening, the bound is %d", n, cfg.TotalBytes)
	}
	if got, err := l.Read(t.Context(), Query{Limit: 1}); err != nil || len(got.Events) != 1 || got.Events[0].ID != 4_000 {
		t.Errorf("the newest is %+v, %v", got.Events, err)
	}
	t.Logf("%d bytes at most of %d allowed; %d of 4000 events kept", most, 256<<10, list.Last-list.First+1)
}

// Old segments leave by age.
func TestAgeIsBounded(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), MaxAge: 48 * time.Hour}
	l := open(t, cfg)
	now := time.Now()
	for _, days := range []int{9, 5, 1, 0} {
		l.Record(api.Event{Kind: api.EventStatus, Subject: "orders/o-1", Time: now.AddDate(0, 0, -days)})
	}
	l.Sync()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, cfg)
	if got := ids(readAll(t, l, Query{HasAfter: true})); !slices.Equal(got, []uint64{3, 4}) {
		t.Errorf("kept are %v", got)
	}
}

// Recording never waits, and what was dropped is an event.
func TestDroppedEventsAreTold(t *testing.T) {
	l := open(t, Config{Dir: t.TempDir(), Queue: 8})
	l.mu.RLock() // the sequencer cannot go on
	for range 100 {
		l.Record(api.Event{Kind: api.EventRegister, Subject: "orders/o-1"})
	}
	l.mu.RUnlock()
	l.Sync()
	events := readAll(t, l, Query{HasAfter: true})
	last := events[len(events)-1]
	told := 0
	_, _ = fmt.Sscanf(last.Detail, "%d events", &told)
	if last.Kind != api.EventDropped || told == 0 || told+len(events)-1 != 100 {
		t.Errorf("%d events, the last is %+v", len(events), last)
	}
}

// A directory that cannot be used costs durability only; when it can, memory is written
// there.
func TestWorksWithoutItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var logs bytes.Buffer
	l := open(t, Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(&logs, nil))})
	for i := range 5 {
		l.Record(api.Event{Kind: api.EventRegister, Subject: fmt.Sprintf("orders/o-%d", i)})
	}
	l.Sync()
	before, err := l.Read(t.Context(), Query{})
	if err != nil || len(before.Events) != 5 || before.Durable {
		t.Fatalf("%+v, %v", before, err)
	}
	if n := strings.Count(logs.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, logs.String())
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	l.Sync()
	if after, err := l.Read(t.Context(), Query{}); err != nil || !after.Durable {
		t.Errorf("not durable after the directory is back: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, Config{Dir: dir})
	again.Record(api.Event{Kind: api.EventEvict, Subject: "orders/o-1"})
	again.Sync()
	got := readAll(t, again, Query{HasAfter: true})
	if len(got) != 6 || !slices.Equal(ids(got[:5]), ids(before.Events)) || got[5].ID != got[4].ID+1 {
		t.Errorf("after reopening: %v, before: %v", ids(got), ids(before.Events))
	}
}

// A disk that fails while the log runs loses nothing that memory still holds, and what it
// lost is told.
func TestDiskFailsAndReturns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	l := open(t, Config{Dir: dir, SegmentBytes: 16 << 10, TotalBytes: 1 << 20, Memory: 100})
	record := func(n int) {
		for range n {
			l.Record(api.Event{Kind: api.EventStatus, Subject: "orders/o-1", Detail: strings.Repeat("d", 300)})
		}
		l.Sync()
	}
	record(20)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	record(90) // needs new segments, which cannot be made
	if got, err := l.Read(t.Context(), Query{HasAfter: true, After: 20, Limit: 1000}); err != nil || got.Durable || got.Last != 110 || len(got.Events) == 0 {
		t.Fatalf("without a directory: durable %v, last %d, %d events, %v", got.Durable, got.Last, len(got.Events), err)
	}
	record(100)
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	record(1)
	l.Sync() // the loss is told behind the event that showed it
	got, err := l.Read(t.Context(), Query{HasAfter: true, Limit: 1000})
	if err != nil || !got.Durable || !got.Gap {
		t.Fatalf("durable %v, gap %v, %v", got.Durable, got.Gap, err)
	}
	last := got.Events[len(got.Events)-1]
	if last.Kind != api.EventDropped || last.Cause.Kind != api.BecauseDisk || last.ID != 212 {
		t.Errorf("the last event is %+v", last)
	}
	for i, e := range got.Events[1:] {
		if e.ID <= got.Events[i].ID {
			t.Fatalf("ids %d after %d", e.ID, got.Events[i].ID)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if again := readAll(t, open(t, Config{Dir: dir, SegmentBytes: 16 << 10, TotalBytes: 1 << 20}), Query{HasAfter: true}); !slices.Equal(ids(again), ids(got.Events)) {
		t.Errorf("after reopening %d events, before %d", len(again), len(got.Events))
	}
}

// P10: a disk that hangs delays the first event, and then nobody: not those who record, nor
// those who read, nor the end of the node. When it thaws it gets what it missed.
func TestDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, Config{Dir: dir})
		record := func() {
			l.Record(api.Event{Kind: api.EventStoreAway, Subject: "eu-west"})
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		seen := func() int {
			page, err := l.Read(t.Context(), Query{})
			if err != nil {
				t.Fatal(err)
			}
			return len(page.Events)
		}
		thaw := make(chan struct{})
		var hang atomic.Bool
		l.Sync() // so that nothing reads the hook while it is set
		synctest.Wait()
		l.disk.beforeWrite = func() {
			if hang.Load() {
				<-thaw
			}
		}
		record()
		hang.Store(true)
		record()
		if n := seen(); n != 1 {
			t.Errorf("%d events at once on a disk that hangs", n)
		}
		time.Sleep(patience)
		synctest.Wait()
		if n := seen(); n != 2 {
			t.Errorf("%d events after %s", n, patience)
		}
		for range 50 {
			record()
		}
		if n := seen(); n != 52 {
			t.Errorf("%d events of 52 without waiting", n)
		}
		began := time.Now()
		if err := l.Close(); err == nil || time.Since(began) > 2*closeTime {
			t.Errorf("closed after %s: %v", time.Since(began), err)
		}
		close(thaw)
		<-l.disk.closed
		if got := readAll(t, open(t, Config{Dir: dir}), Query{HasAfter: true}); len(got) != 52 {
			t.Errorf("%d events of 52 on disk", len(got))
		}
	})
}

// After an end that was not in good order, ids that readers may have seen are not given
// again; a torn tail is cut; foreign files are left or set aside.
func TestOpensWhatAKillLeft(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Config{Dir: dir})
	for range 10 {
		l.Record(api.Event{Kind: api.EventStatus, Subject: "orders/o-1"})
	}
	l.Sync()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		inUse: "", "000000000007.events": "someone else's", "000000000009.events": "NS", "notes.txt": "mine",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	segment := filepath.Join(dir, "000000000001.events")
	st, err := os.Stat(segment)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(segment, st.Size()-5); err != nil {
		t.Fatal(err)
	}
	l = open(t, Config{Dir: dir})
	l.Record(api.Event{Kind: api.EventStatus, Subject: "orders/o-1"})
	l.Sync()
	got := readAll(t, l, Query{HasAfter: true})
	if n := len(got); n != 10 || got[8].ID != 9 || got[9].ID != 9+idsLost+1 || got[9].Cause.Ref != 9 {
		t.Errorf("%v", ids(got))
	}
	for _, name := range []string{"000000000007.events.broken", "notes.txt"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// A damaged event in the middle costs that event alone, and is told as a gap.
func TestDamagedEvent(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Config{Dir: dir, Memory: 1})
	for i := range 10 {
		l.Record(api.Event{Kind: api.EventStatus, Subject: fmt.Sprintf("orders/o-%d", i)})
	}
	l.Sync()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "000000000001.events")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("orders/o-4"))] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l = open(t, Config{Dir: dir, Memory: 1})
	list, err := l.Read(t.Context(), Query{HasAfter: true})
	if err != nil || !list.Gap || !slices.Equal(ids(list.Events), []uint64{1, 2, 3, 4, 6, 7, 8, 9, 10}) {
		t.Errorf("%v, gap %v, %v", ids(list.Events), list.Gap, err)
	}
}

// Followers see every event once and in order, across memory and disk; one that is slower
// than the log is deep is told what it missed, and holds nobody up.
func TestFollow(t *testing.T) {
	l := open(t, Config{Dir: t.TempDir(), SegmentBytes: 16 << 10, TotalBytes: 64 << 10, Memory: 32})
	record := func(n int) {
		for range n {
			l.Record(api.Event{Kind: api.EventStatus, Subject: "orders/o-1", Detail: strings.Repeat("d", 100)})
		}
		l.Sync()
	}
	record(100)
	stop := errors.New("enough")
	seen, gate := uint64(40), make(chan struct{})
	var gap *api.EventGap
	marks := 0
	ended := make(chan error, 1)
	go func() {
		ended <- l.Follow(context.Background(), Query{HasAfter: true, After: 40}, func(f api.EventFrame) error {
			switch {
			case f.Gap != nil:
				gap = f.Gap
				if f.Gap.After != seen {
					return fmt.Errorf("gap %+v after %d", f.Gap, seen)
				}
				seen = f.Gap.Next - 1
				return nil
			case f.Event == nil:
				marks++
				return nil
			case f.Event.ID != seen+1:
				return fmt.Errorf("%d after %d", f.Event.ID, seen)
			}
			seen++
			if seen == 90 {
				<-gate // slow
			}
			if seen == 2_100 {
				return stop
			}
			return nil
		})
	}()
	record(2_000)
	close(gate)
	if err := <-ended; !errors.Is(err, stop) || gap == nil || gap.Next < 1_000 {
		t.Errorf("followed up to %d, gap %+v: %v", seen, gap, err)
	}
	// A log that was lost: the ids that the follower knows are above all there are.
	err := l.Follow(t.Context(), Query{HasAfter: true, After: 1 << 40}, func(f api.EventFrame) error {
		if f.Gap == nil || f.Gap.After != 1<<40 {
			return fmt.Errorf("the first frame is %+v", f)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Error(err)
	}
}

// A quiet stream proves that it lives, and starts now unless told otherwise.
func TestFollowBookmarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Config{})
		l.Record(api.Event{Kind: api.EventStatus, Subject: "orders/o-1"})
		l.Sync()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var got []string
		ended := make(chan error, 1)
		go func() {
			ended <- l.Follow(ctx, Query{Kinds: []api.EventKind{api.EventEvict}}, func(f api.EventFrame) error {
				what := "bookmark"
				if f.Event != nil {
					what = string(f.Event.Kind)
				}
				got = append(got, what)
				return nil
			})
		}()
		time.Sleep(11 * time.Second)
		l.Record(api.Event{Kind: api.EventStatus, Subject: "orders/o-1"})
		l.Record(api.Event{Kind: api.EventEvict, Subject: "orders/o-1"})
		time.Sleep(time.Second)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if s := strings.Join(got, " "); s != "bookmark bookmark bookmark evict" {
			t.Error(s)
		}
	})
}

// What comes from strangers cannot forge lines, break UTF-8 or fill the log.
func TestTextsAreBounded(t *testing.T) {
	l := open(t, Config{})
	l.Record(api.Event{Kind: "odd", Subject: strings.Repeat("é", 1000), Detail: "a\nb\x1b[31m\xff\u2028" + strings.Repeat("€", 1000), Actor: "\r"})
	l.Sync()
	e := readAll(t, l, Query{HasAfter: true})[0]
	if len(e.Subject) > api.MaxEventSubject || len(e.Detail) > api.MaxEventDetail || !strings.HasPrefix(e.Detail, "a b [31m\ufffd €") ||
		e.Actor != " " || e.Cause.Kind != api.BecauseUnknown {
		t.Errorf("%+v", e)
	}
}
