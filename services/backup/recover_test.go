package backup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// P1: whatever goes wrong in the last step of a recovery, the old store is where it was; and when
// nothing does, it is kept.
func TestRecoveryNeverLosesTheOldStore(t *testing.T) {
	holds := func(path string) string {
		b, err := os.ReadFile(filepath.Join(path, "which"))
		if errors.Is(err, fs.ErrNotExist) {
			return ""
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	site := func() (fresh, old, kept string) {
		dir := t.TempDir()
		fresh, old, kept = filepath.Join(dir, ".recovering-1", "etcd"), filepath.Join(dir, "etcd"), filepath.Join(dir, "etcd.before-recover-x")
		for path, which := range map[string]string{fresh: "new", old: "old"} {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(path, "which"), []byte(which), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return fresh, old, kept
	}

	fresh, old, kept := site()
	if err := install(fresh, old, kept); err != nil || holds(old) != "new" || holds(kept) != "old" {
		t.Errorf("%v: in place %q, kept %q", err, holds(old), holds(kept))
	}
	// A recovery ends by removing its work directory.
	for _, taken := range []func(kept string) error{
		func(kept string) error { return os.WriteFile(kept, nil, 0o600) },
		func(kept string) error { return os.MkdirAll(filepath.Join(kept, "of another"), 0o700) },
		func(kept string) error { return os.Mkdir(kept, 0o700) },
	} {
		fresh, old, kept = site()
		if err := taken(kept); err != nil {
			t.Fatal(err)
		}
		err := install(fresh, old, kept)
		if e := os.RemoveAll(filepath.Dir(fresh)); e != nil {
			t.Fatal(e)
		}
		if err == nil || holds(old) != "old" {
			t.Errorf("%v: in place %q, want the old store and an error", err, holds(old))
		}
	}
	// Nothing to exchange with: what there is stays.
	fresh, old, kept = site()
	if err := os.Rename(old, old+".elsewhere"); err != nil {
		t.Fatal(err)
	}
	if err := install(fresh, old, kept); err == nil || holds(old+".elsewhere") != "old" {
		t.Errorf("%v", err)
	}
	// In steps, as on file systems that cannot exchange two names.
	fresh, old, _ = site()
	if err := swapInSteps(fresh, old); err != nil || holds(old) != "new" || holds(fresh) != "old" {
		t.Errorf("in steps: %v: %q and %q", err, holds(old), holds(fresh))
	}
}

// P1, P11: a recovery that is killed between the two steps of putting the new store in its place is told of, with where
// the records are; done again after its remedy nothing is in the way.
func TestRecoveryCutOffInItsLastStepIsTold(t *testing.T) {
	dir := t.TempDir()
	old, aside := filepath.Join(dir, "etcd"), filepath.Join(dir, "etcd.swap")
	if err := os.MkdirAll(filepath.Join(old, "etcd", "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := HalfDone(dir); err != nil {
		t.Errorf("nothing happened: %v", err)
	}
	if err := os.Rename(old, aside); err != nil { // as swapInSteps does, and then it is killed
		t.Fatal(err)
	}
	check := func(err error) {
		t.Helper()
		if !errors.Is(err, ErrHalfDone) || !strings.Contains(err.Error(), aside+"; move that to "+old) || !strings.Contains(err.Error(), "region recover") {
			t.Errorf("%v", err)
		}
	}
	check(HalfDone(dir))
	_, err := Recover(t.Context(), RecoverConfig{Region: "us-east", Node: "us-east-1", DataDir: dir})
	check(err)
	if err := os.Mkdir(old, 0o700); err != nil { // by an older version that was started
		t.Fatal(err)
	}
	check(HalfDone(dir))
	if err := errors.Join(os.Remove(old), os.Rename(aside, old)); err != nil {
		t.Fatal(err)
	}
	if err := HalfDone(dir); err != nil {
		t.Errorf("after the remedy: %v", err)
	}
}
