package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// A ready file that can never be written is said at the start, before anything is served.
func TestReadyFileIsTriedAtTheStart(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "none", "ready"), dir} {
		cfg := Config{Region: "us-east", Dev: true, HTTPAddr: "127.0.0.1:0", FederationAddr: "127.0.0.1:0", DataDir: filepath.Join(dir, "data"), ReadyFile: path, LogLevel: "info"}
		if err := cfg.Normalize(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := Run(ctx, cfg, io.Discard)
		cancel()
		var u *UsageError
		if !errors.As(err, &u) || !strings.Contains(err.Error(), "--ready-file") || u.Remedy == "" {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// P10: a node that serves does not end because a file beside it cannot be written.
func TestReadyFileIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "later")
		path := filepath.Join(dir, "ready")
		var told bytes.Buffer
		log := slog.New(slog.NewTextHandler(&told, nil))
		written := make(chan struct{})
		go func() {
			defer close(written)
			writeReadyFile(t.Context(), t.Context(), path, api.ReadyFile{PID: 7}, log)
		}()
		time.Sleep(3*readyFileAgain + readyFileAgain/2)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		<-written
		if b, err := os.ReadFile(path); err != nil || !bytes.Contains(b, []byte(`"pid": 7`)) {
			t.Errorf("%s, %v", b, err)
		}
		if n := strings.Count(told.String(), "tried again"); n != 1 {
			t.Errorf("told %d times:\n%s", n, told.String())
		}
		stopped, stop := context.WithCancel(t.Context())
		stop()
		writeReadyFile(stopped, t.Context(), filepath.Join(dir, "none", "ready"), api.ReadyFile{}, log) // returns
	})
}
