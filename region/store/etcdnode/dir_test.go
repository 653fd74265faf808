package etcdnode

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// etcd panics on a disk that its first log segment does not fit on; we say so before.
func TestTooLittleSpaceIsRefused(t *testing.T) {
	d := &dataDir{path: t.TempDir()}
	free := func(mb uint64) func(string) (uint64, bool) {
		return func(string) (uint64, bool) { return mb << 20, true }
	}
	err := d.checkSpace(free(150))
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), d.path) || !strings.Contains(err.Error(), "150 MB free and needs 200 MB") {
		t.Errorf("a first start with 150 MB: %v", err)
	}
	if err := d.checkSpace(free(200)); err != nil {
		t.Errorf("a first start with 200 MB: %v", err)
	}
	if err := d.checkSpace(func(string) (uint64, bool) { return 0, false }); err != nil {
		t.Errorf("where it cannot be told: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(d.path, "etcd", "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.checkSpace(free(150)); err != nil {
		t.Errorf("a later start with 150 MB: %v", err)
	}
	if err := d.checkSpace(free(79)); !errors.Is(err, ErrNoSpace) {
		t.Errorf("a later start with 79 MB: %v", err)
	}
	if have, ok := freeBytes(d.path); !ok || have == 0 {
		t.Errorf("free space of %s: %d, %v", d.path, have, ok)
	}
}

// P12: a directory that somebody else prepared is not used for the socket.
func TestForeignSocketDirectoryIsNotUsed(t *testing.T) {
	temp := t.TempDir()
	d := &dataDir{path: "/" + strings.Repeat("x", 200)}
	if err := d.placeSocket(temp); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Dir(d.socket)
	if filepath.Dir(mine) != temp {
		t.Fatalf("the socket went to %s", d.socket)
	}
	if err := d.placeSocket(temp); err != nil || filepath.Dir(d.socket) != mine {
		t.Errorf("one left behind is not used again: %s, %v", d.socket, err)
	}
	if err := os.Chmod(mine, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.placeSocket(temp); err == nil && filepath.Dir(d.socket) == mine {
		t.Error("a directory open to others was used")
	}
	d.cleanSocket()
	// The same for a link to elsewhere.
	if err := os.Remove(mine); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), mine); err != nil {
		t.Fatal(err)
	}
	if err := d.placeSocket(temp); err == nil && filepath.Dir(d.socket) == mine {
		t.Error("a link was used")
	}
	d.cleanSocket()
}

// Somebody passes /tmp: it is not closed to everybody else.
func TestUsedDirectoryKeepsItsMode(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := makePrivate(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
