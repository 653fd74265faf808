package etcdnode_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
)

func soon(t *testing.T, patience time.Duration, what string, cond func() error) {
	t.Helper()
	ask := time.NewTicker(20 * time.Millisecond)
	defer ask.Stop()
	late := time.After(patience)
	for {
		err := cond()
		if err == nil {
			return
		}
		select {
		case <-ask.C:
		case <-late:
			t.Fatalf("not within %s: %s: %v", patience, what, err)
		}
	}
}

// P8, P10: a store that has reached its quota takes writes again once something is deleted,
// without a human: it is compacted, defragmented, and its alarm disarmed. A watch that was
// behind meanwhile is told to load again.
func TestFullStoreTakesWritesAgainByItself(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 30 MiB")
	}
	cfg := config(t.TempDir())
	cfg.QuotaBytes, cfg.UpkeepInterval = 16<<20, 100*time.Millisecond
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	n := start(t, cfg)
	s, err := openStore(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first, err := s.Commit(t.Context(), []store.Op{{Key: "first"}})
	if err != nil {
		t.Fatal(err)
	}
	// Filled with records that are all in use, so that nothing helps but deletes. Upkeep is at
	// work meanwhile: a put may have to wait for it, or be taken again.
	value := make([]byte, 900<<10)
	count := 0
	soon(t, 60*time.Second, "the store is full of live records", func() error {
		_, err := s.Commit(t.Context(), []store.Op{{Key: fmt.Sprintf("big/%d", count), Value: value}})
		switch sp := n.Space(); {
		case err == nil:
			count++
		case errors.Is(err, store.ErrFull) && sp.Alarm && sp.InUse > sp.Quota/100*95:
			return nil
		case !errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrUnavailable):
			t.Fatal(err)
		}
		return fmt.Errorf("%d records, %+v, %v", count, n.Space(), err)
	})
	count++ // the last one may have happened
	if _, err := s.Commit(t.Context(), []store.Op{{Key: "small"}}); !errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("a put on a full store: %v", err)
	}
	begun := time.Now()
	for i := range count {
		soon(t, 30*time.Second, "a delete is taken", func() error {
			_, err := s.Commit(t.Context(), []store.Op{{Delete: true, Key: fmt.Sprintf("big/%d", i)}})
			if err != nil && !errors.Is(err, store.ErrUnavailable) { // it waits for a defragmentation
				t.Fatalf("a delete on a full store: %v", err)
			}
			return err
		})
	}
	deleted := time.Now()
	soon(t, 30*time.Second, "puts are taken again", func() error {
		_, err := s.Commit(t.Context(), []store.Op{{Key: "small"}})
		if err != nil && !errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
		return err
	})
	took := time.Since(deleted)
	soon(t, 10*time.Second, "upkeep has counted what it did", func() error {
		if sp := n.Space(); sp.Alarm || sp.Disarms == 0 || sp.Defragmentations == 0 || sp.Compactions == 0 {
			return fmt.Errorf("%+v", sp)
		}
		return nil
	})
	t.Logf("16 MiB quota filled by %d records, upkeep every %s: puts were taken again %s after the last of %d deletes (%s), %+v",
		count, cfg.UpkeepInterval, took.Round(time.Millisecond), count, deleted.Sub(begun).Round(time.Millisecond), n.Space())
	err = s.Watch(t.Context(), first, func(b store.Batch) error { return fmt.Errorf("told of revision %d after a gap", b.Revision) }, nil)
	if !errors.Is(err, store.ErrCompacted) {
		t.Errorf("a watch that was behind: %v", err)
	}
	if img, err := s.Load(t.Context()); err != nil || len(img.Records) != 2 {
		t.Errorf("loaded %d records, %v", len(img.Records), err)
	}
}

// P8: overwriting the same records for ever fills no store, and nobody is refused.
func TestChurnDoesNotFillTheStore(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 60 MiB")
	}
	cfg := config(t.TempDir())
	cfg.QuotaBytes, cfg.UpkeepInterval = 64<<20, 50*time.Millisecond
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	n := start(t, cfg)
	s, err := openStore(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	value := make([]byte, 500<<10)
	// Some 47 MiB are past 75 %: history beyond 1,000 revisions is more than there is, so only
	// the last step, or the alarm, can help. Either way writes go on.
	refused := 0
	for i := range 200 {
		soon(t, 30*time.Second, "a put is taken", func() error {
			_, err := s.Commit(t.Context(), []store.Op{{Key: fmt.Sprint(i % 5), Value: value}})
			if errors.Is(err, store.ErrFull) {
				refused++
			} else if err != nil && !errors.Is(err, store.ErrUnavailable) {
				t.Fatal(err)
			}
			return err
		})
	}
	t.Logf("98 MiB through a quota of 64 MiB, %d refusals, %+v", refused, n.Space())
}

// P10: "watched so that writes are refused before the disk is full", and everything else
// goes on; on a real, small disk that a foreign file fills.
func TestFullDiskRefusesWritesAndEndsNothing(t *testing.T) {
	dir := smallDisk(t, 320)
	cfg := config(filepath.Join(dir, "data"))
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	n := start(t, cfg)
	s, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: []string{n.Endpoint()}, Region: "eu-west", Room: n.Room, RequestTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func() error {
		_, err := s.Commit(t.Context(), []store.Op{{Key: "a", Value: make([]byte, 1000)}})
		return err
	}
	remove := func() error {
		_, err := s.Commit(t.Context(), []store.Op{{Key: "a", Delete: true}})
		return err
	}
	if err := put(); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign")
	expect := func(what string, want error, try func() error) {
		t.Helper()
		soon(t, 5*time.Second, what, func() error {
			err := try()
			if !errors.Is(err, want) || (err == nil) != (want == nil) {
				return fmt.Errorf("got %v", err)
			}
			return nil
		})
	}
	reads := func() {
		t.Helper()
		if _, err := s.Load(t.Context()); err != nil {
			t.Errorf("load on a full disk: %v", err)
		}
		if _, err := s.Barrier(t.Context()); err != nil {
			t.Errorf("barrier on a full disk: %v", err)
		}
		select {
		case err := <-n.Err():
			t.Fatalf("the member ended: %v", err)
		default:
		}
	}
	for round := range 2 {
		free := int64(n.Space().DiskFree)
		// Nearly full: puts are refused, deletes are not.
		fill(t, foreign, free-100<<20)
		begun := time.Now()
		expect("puts are refused", store.ErrFull, put)
		noticed := time.Since(begun)
		t.Logf("round %d: refused %s after the disk went below its reserve: %v", round, noticed.Round(time.Millisecond), put())
		if err := remove(); err != nil {
			t.Errorf("a delete on a nearly full disk: %v", err)
		}
		reads()
		// To the last byte: nothing is written, and nothing ends.
		fill(t, foreign, -1)
		expect("deletes are refused", store.ErrUnavailable, remove)
		reads()
		if err := os.Remove(foreign); err != nil {
			t.Fatal(err)
		}
		begun = time.Now()
		expect("puts are taken again", nil, put)
		t.Logf("round %d: taken again %s after the disk had room", round, time.Since(begun).Round(time.Millisecond))
	}
	if err := errors.Join(s.Close(), n.Close()); err != nil {
		t.Error(err)
	}
	// Starting on a full disk is refused by name, and possible again afterwards.
	fill(t, foreign, -1)
	if _, err := etcdnode.Start(t.Context(), cfg); !errors.Is(err, etcdnode.ErrNoSpace) && !errors.Is(err, etcdnode.ErrNotWritable) {
		t.Errorf("start on a full disk: %v", err)
	} else {
		t.Logf("start on a full disk: %v", err)
	}
	// P3, P11: a node that has records holds them all the same. It answers from its copy, and its members wait for room.
	if r, err := etcdnode.Reserve(cfg); err != nil {
		t.Errorf("a node with records was refused on a full disk: %v", err)
	} else if err := errors.Join(r.Room(true), r.Close()); !errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("room for a write on a full disk: %v", err)
	}
	empty := cfg
	empty.DataDir = filepath.Join(filepath.Dir(cfg.DataDir), "none-yet")
	if _, err := etcdnode.Reserve(empty); !errors.Is(err, etcdnode.ErrNoSpace) && !errors.Is(err, etcdnode.ErrNotWritable) {
		t.Errorf("a first start on a full disk: %v", err)
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	_ = start(t, cfg).Close()
}

// smallDisk mounts a tmpfs of some MiB; the test is skipped, and says so, where it may not.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	dir := t.TempDir()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("SKIPPED: a small disk can be mounted by root on Linux only")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", mib), "nearside-test", dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no small disk can be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

// fill writes a file of size bytes, or, with -1, until the disk takes no more.
func fill(t *testing.T, name string, size int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for written := int64(0); size < 0 || written < size; {
		n, err := f.Write(block)
		if written += int64(n); err != nil {
			if size < 0 {
				return
			}
			t.Fatal(err)
		}
	}
}
