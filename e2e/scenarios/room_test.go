package scenarios

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
)

// P8, P11, catalogue row 6: a start on a disk without room ends in time with an exit code of
// its own and a message that names directory, bytes and remedy; it does not panic, and the
// same command works once there is room.
func TestStartWithoutRoom(t *testing.T) {
	disk := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", disk).CombinedOutput(); err != nil {
		t.Skipf("needs the right to mount a small file system: %v: %s", err, strings.TrimSpace(string(out)))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", disk).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	binary := cluster.Binary(t)
	data := filepath.Join(disk, "data")
	for _, full := range []struct {
		name string
		left int64 // bytes; the file system has 60 MiB
	}{{"60 MiB are free", 60 << 20}, {"4 MiB are free", 4 << 20}, {"nothing is free", 0}} {
		t.Run(full.name, func(t *testing.T) {
			stuffing := filepath.Join(disk, "stuffing")
			if err := os.WriteFile(stuffing, make([]byte, 60<<20-full.left), 0o600); err != nil && full.left > 0 {
				t.Fatal(err)
			}
			defer os.Remove(stuffing)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, binary, "server", "--dev", "--region", "us-east", "--data-dir", data,
				"--http-addr", "127.0.0.1:0", "--federation-addr", "127.0.0.1:0")
			cmd.WaitDelay = time.Second
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			begun := time.Now()
			err := cmd.Run()
			took := time.Since(begun)
			text := out.String()
			last := text[strings.LastIndexByte(strings.TrimSpace(text), '\n')+1:]
			t.Logf("exit code %d after %s: %s", cmd.ProcessState.ExitCode(), took.Round(time.Millisecond), strings.TrimSpace(last))
			if err == nil || cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("ended with %v, want exit code 1", err)
			}
			if strings.Contains(text, "panic:") || strings.Contains(text, "goroutine ") {
				t.Errorf("it panicked:\n%s", text)
			}
			for _, say := range []string{disk, "MB free"} {
				if !strings.Contains(last, say) {
					t.Errorf("the message does not say %q", say)
				}
			}
		})
	}
}
