package cluster

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Program is a binary of some commit of this repository.
type Program struct {
	Path   string
	Commit string
	Took   time.Duration // to build it; 0 = it was there
}

// errNoHistory is why there is no old program.
var errNoHistory = errors.New("no history")

var oldest = sync.OnceValues(func() (p Program, err error) {
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(here), "..", "..")
	git := func(args ...string) ([]byte, error) {
		cmd := exec.Command("git", append([]string{"-C", root}, args...)...)
		out, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(exit.Stderr))
		}
		return out, err
	}
	shallow, err := git("rev-parse", "--is-shallow-repository")
	switch {
	case err != nil:
		return p, fmt.Errorf("%w: %w", errNoHistory, err)
	case strings.TrimSpace(string(shallow)) == "true":
		return p, fmt.Errorf("%w: this is a shallow clone", errNoHistory)
	}
	// The first commit with a main program had the peer protocol already; both files must be there.
	for _, file := range []string{"federation/peer/server.go", "services/cmd/nearside/main.go"} {
		added, err := git("log", "--reverse", "--diff-filter=A", "--format=%H", "--", file)
		if err != nil || len(added) == 0 {
			return p, fmt.Errorf("%w: no commit added %s (%v)", errNoHistory, file, err)
		}
		commit, _, _ := strings.Cut(string(added), "\n")
		if p.Commit != "" {
			if _, err := git("merge-base", "--is-ancestor", p.Commit, commit); err != nil {
				continue // the other one came later
			}
		}
		p.Commit = commit
	}
	if head, err := git("rev-parse", "HEAD"); err != nil || strings.TrimSpace(string(head)) == p.Commit {
		return p, fmt.Errorf("%w: this is the only commit (%v)", errNoHistory, err)
	}
	dir := filepath.Join(root, "e2e", ".artifacts", "oldest-"+p.Commit[:12])
	p.Path = filepath.Join(dir, "nearside")
	if _, err := os.Stat(p.Path); err == nil {
		return p, nil
	}
	began := time.Now()
	src, err := os.MkdirTemp("", "nearside-oldest-")
	if err != nil {
		return p, err
	}
	defer os.RemoveAll(src)
	files, err := git("archive", "--format=tar", p.Commit)
	if err != nil {
		return p, err
	}
	if err := unpack(src, files); err != nil {
		return p, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return p, err
	}
	// The flags of the Makefile's build: etcd comes from the same build cache.
	half := p.Path + fmt.Sprintf(".%d", os.Getpid())
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", half, "./services/cmd/nearside")
	build.Dir = src
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return p, fmt.Errorf("building nearside of commit %s: %w\n%s", p.Commit[:12], err, out)
	}
	p.Took = time.Since(began)
	return p, os.Rename(half, p.Path)
})

// Oldest returns the program of the oldest commit that speaks the peer protocol, built from
// git. The test is skipped, and says why, where there is no history to build it from.
func Oldest(t testing.TB) Program {
	t.Helper()
	p, err := oldest()
	if errors.Is(err, errNoHistory) {
		t.Skipf("the oldest program that speaks the peer protocol cannot be built: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func unpack(dir string, archive []byte) error {
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeReg:
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, b, 0o644)
			}
		}
		if err != nil {
			return err
		}
	}
}
