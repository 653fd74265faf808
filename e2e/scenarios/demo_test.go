package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/services/demo"
)

func demoCommand(ctx context.Context, t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(ctx, cluster.Binary(t), append([]string{"demo", "--base-port", "27400"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 15 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out
}

// childrenOf lists the processes whose command line mentions dir.
func childrenOf(t *testing.T, dir string) []string {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, l := range lines {
		b, err := os.ReadFile(l)
		if err == nil && strings.Contains(string(b), dir) && !strings.Contains(string(b), "\x00demo\x00") {
			found = append(found, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return found
}

// The unattended demo kills and restores a region, no safe-to-repeat call of a surviving
// region fails, the times are reported, and no process stays behind.
func TestDemoKillsAndRestoresARegion(t *testing.T) {
	t.Parallel() // it waits more than it works
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd, out := demoCommand(ctx, t, "--duration", "22s", "--kill", "eu-west@6s", "--restore", "eu-west@12s", "--data-dir", dir, "--report", dir+"/report.json")
	begun := time.Now()
	err := cmd.Run()
	t.Logf("took %s\n%s", time.Since(begun).Round(time.Millisecond), out)
	if err != nil {
		t.Fatalf("the demo ended with %v", err)
	}
	b, err := os.ReadFile(dir + "/report.json")
	if err != nil {
		t.Fatal(err)
	}
	var s demo.Summary
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	if s.Surviving.Requests == 0 || s.Surviving.SafeFailed != 0 {
		t.Errorf("surviving regions: %+v", s.Surviving)
	}
	if len(s.Faults) != 1 || s.Faults[0].FailOver["ap-south"] <= 0 || s.Faults[0].FailBack["ap-south"] <= 0 {
		t.Errorf("fail-over and fail-back of ap-south were not measured: %+v", s.Faults)
	}
	if left := childrenOf(t, dir); len(left) > 0 {
		t.Errorf("processes left behind: %v", left)
	}
	head, _, _ := strings.Cut(out.String(), "Ctrl-C ends everything.")
	if n := strings.Count(head, "\n"); n > 25 {
		t.Errorf("the first screen has %d lines, 25 are allowed", n)
	}
}

// Killing the demo itself leaves nothing behind either.
func TestDemoKilledLeavesNothingBehind(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			dir := t.TempDir()
			ready := filepath.Join(t.TempDir(), "ready.json")
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			cmd, out := demoCommand(ctx, t, "--data-dir", dir, "--ready-file", ready)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			cluster.Within(t, 40*time.Second, "the demo is up", func() error { _, err := os.Stat(ready); return err })
			t.Logf("up after %s", time.Since(begun).Round(time.Millisecond))
			begun = time.Now()
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			t.Logf("ended %s after %s", time.Since(begun).Round(time.Millisecond), sig)
			cluster.Within(t, 10*time.Second, "no process is left", func() error {
				if left := childrenOf(t, dir); len(left) > 0 {
					return &leftBehind{left}
				}
				return nil
			})
			if t.Failed() {
				t.Logf("%s", out)
			}
		})
	}
}

type leftBehind struct{ names []string }

func (l *leftBehind) Error() string { return strings.Join(l.names, "\n") }
