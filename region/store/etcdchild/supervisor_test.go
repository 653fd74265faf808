package etcdchild_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/etcdchild"
	"github.com/nearside/nearside/region/store/etcdnode"
)

func put(key string) []store.Op { return []store.Op{{Key: key, Value: []byte(key)}} }

// P10, P11: whatever ends the child ends nothing else; it is back by itself, with everything
// that was acknowledged, and the directory is free after Close.
func TestChildThatIsKilledComesBack(t *testing.T) {
	dir := t.TempDir()
	s := serving(t, dir)
	st := s.store()
	if _, err := st.Commit(t.Context(), put("before")); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		pid := s.State().PID
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		took := within(t, 30*time.Second, "a write is taken again", func() error {
			_, err := st.Commit(t.Context(), put(fmt.Sprint("after", round)))
			if err != nil && !errors.Is(err, store.ErrUnavailable) {
				t.Fatalf("while the child is away: %v", err)
			}
			return err
		})
		if err := gone(pid); err != nil {
			t.Error(err)
		}
		now := s.State()
		t.Logf("killed child %d: a write was taken %s later, by %d", pid, took.Round(time.Millisecond), now.PID)
		if now.PID == pid || now.Restarts != round+1 || s.Trouble() != "" {
			t.Errorf("%+v", now)
		}
	}
	img, err := st.Load(t.Context())
	if err != nil || len(img.Records) != 4 {
		t.Errorf("%d records, %v", len(img.Records), err)
	}
	if got := s.phases(); got != "ready away ready away ready away ready" {
		t.Errorf("told of %q", got)
	}
	last := s.State().PID
	if err := errors.Join(st.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := gone(last); err != nil {
		t.Error(err)
	}
	n, err := etcdnode.Start(t.Context(), config(dir))
	if err != nil {
		t.Fatalf("the directory is not free: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// A child that stands still is left alone: what it holds is fine, and it goes on.
func TestChildThatIsStoppedGoesOn(t *testing.T) {
	s := serving(t, t.TempDir())
	st := s.store()
	pid := s.State().PID
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGSTOP} {
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := st.Commit(t.Context(), put("a")); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a write to a child that stands still: %v", err)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "a write is taken", func() error { _, err := st.Commit(t.Context(), put("b")); return err })
	if now := s.State(); now.PID != pid || now.Phase != etcdchild.Ready {
		t.Errorf("signals that are for the node ended it: %+v", now)
	}
}

// node starts a process that supervises a member.
func node(t *testing.T, dir string) (cmd *exec.Cmd, child int) {
	t.Helper()
	cmd = exec.Command(os.Args[0], "node", dir)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the node said %q: %v", line, err)
	}
	if child, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	return cmd, child
}

// P11: kill -9 of the node leaves no child behind, not even one that stands still, and a node
// that is started at once takes the directory over.
func TestKilledNodeLeavesNoChild(t *testing.T) {
	dir := t.TempDir()
	for _, stopped := range []bool{false, true} {
		cmd, pid := node(t, dir)
		if stopped {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
		}
		// A second node is refused at once, with the first one's pid.
		if _, err := etcdchild.Start(etcdchild.Config{Config: config(dir)}); !errors.Is(err, etcdnode.ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
			t.Errorf("a second node: %v", err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		s := serving(t, dir)
		if err := gone(pid); err != nil {
			t.Errorf("stopped %t: %v", stopped, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// SIGTERM of the node ends both, and leaves neither a process nor a lock.
func TestNodeEndsItsChild(t *testing.T) {
	dir := t.TempDir()
	cmd, pid := node(t, dir)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the node: %v", err)
	}
	if err := gone(pid); err != nil {
		t.Error(err)
	}
	n, err := etcdnode.Start(t.Context(), config(dir))
	if err != nil {
		t.Fatal(err)
	}
	_ = n.Close()
}

// The errors of a start are etcdnode's, in its words; what another start cannot cure is final.
func TestFirstStartThatCannotWork(t *testing.T) {
	t.Run("another region", func(t *testing.T) {
		dir := t.TempDir()
		s := serving(t, dir)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		cfg := config(dir)
		cfg.Region = "us-east"
		if _, err := etcdchild.Start(etcdchild.Config{Config: cfg}); !errors.Is(err, store.ErrWrongRegion) || !strings.Contains(err.Error(), "eu-west") {
			t.Errorf("%v", err)
		}
	})
	t.Run("damaged files", func(t *testing.T) {
		dir := t.TempDir()
		s := serving(t, dir)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, "etcd", "member", "snap", "db"), 100); err != nil {
			t.Fatal(err)
		}
		s = start(t, etcdchild.Config{Config: config(dir)})
		err := s.Await(t.Context())
		if !errors.Is(err, etcdnode.ErrCorrupt) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%v", err)
		}
		t.Log(err)
	})
	t.Run("a file in the way", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := etcdchild.Start(etcdchild.Config{Config: config(file)}); !errors.Is(err, etcdnode.ErrNotWritable) {
			t.Errorf("%v", err)
		}
	})
}

// P10, P11: a node that is started while its disk is full comes up, says so, and gets its records
// back when there is room, without a human. A first start is refused at once.
func TestStartOnAFullDiskWaitsForRoom(t *testing.T) {
	disk := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=320m", "nearside-test", disk).CombinedOutput(); err != nil {
		t.Skipf("needs to mount a tmpfs: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", disk).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	dir, foreign := filepath.Join(disk, "data"), filepath.Join(disk, "foreign")
	s := serving(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// All of the room: not even the process's own number can be noted.
	full, err := os.Create(foreign)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = full.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	_ = full.Close()
	if _, err := etcdchild.Start(etcdchild.Config{Config: config(filepath.Join(disk, "another"))}); !errors.Is(err, etcdnode.ErrNoSpace) {
		t.Errorf("a first start: %v", err)
	}
	s = start(t, etcdchild.Config{Config: config(dir)})
	within(t, 20*time.Second, "the cause is told", func() error {
		if st := s.State(); st.Phase != etcdchild.Away || !strings.Contains(st.Cause, "too little disk space") {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := s.Await(ctx); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// A child that ends at every start is tried again, never given up, and its own words say why.
func TestChildThatPanicsIsToldOf(t *testing.T) {
	s := start(t, etcdchild.Config{Config: config(t.TempDir()), Command: []string{os.Args[0], "panic"}})
	within(t, 20*time.Second, "it was started three times", func() error {
		if got := s.phases(); strings.Count(got, "away") < 3 {
			return errors.New(got)
		}
		return nil
	})
	if got := s.Trouble(); !strings.Contains(got, "panic: a bug") {
		t.Errorf("it says %q", got)
	}
	if err := s.Room(true); err != nil {
		t.Errorf("the disk is watched without a child too: %v", err)
	}
}
