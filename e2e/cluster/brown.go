package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

var buildBrown = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(here), "..", "..")
	out := filepath.Join(root, "e2e", ".artifacts", "nearside-brown")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "brown", "-o", out, "./cmd/nearside")
	cmd.Dir = filepath.Join(root, "services")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building nearside with the tag brown: %w\n%s", err, b)
	}
	return out, nil
})

// Brown returns a binary that has the known bug which the environment of its process names
// in NEARSIDE_BROWN, so that tests can be tested. Nobody else may get it.
func Brown(t testing.TB) string {
	t.Helper()
	b, err := buildBrown()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
