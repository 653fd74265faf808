package safety

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
)

// mm is a known bug, and the part of the suite that must catch it.
type mm struct {
	bug  string // as NEARSIDE_BROWN names it
	what string
	// story is a test of this package, run against a binary with the bug; else the tests of
	// package dir are run with the bug in them.
	story, dir string
	says       string // what the failed test must say: it has to fail for the right reason
}

var mms = []mm{
	{"drop-event", "a watch leaves out every 32nd revision", "TestWatchGuarantees", "", "P5:"},
	{"skip-fencing", "an older incarnation registers over a newer one", "TestLinearizableRegistry", "", "P1, P9:"},
	{"empty-set", "no brake: when all are silent a service is published empty", "", "region/liveness", "--- FAIL: TestLaws"},
	{"old-epoch", "a replica accepts an older epoch of its origin", "", "federation/replica", "--- FAIL: TestRandomNetwork"},
	{"no-grace", "after a pause of the registry nobody gets a TTL of grace", "", "region/liveness", "--- FAIL: TestPause"},
	{"ack-early", "a registration is acknowledged before it is committed", "TestKill9Loop", "", "P1"},
	{"lose-tombstone", "of two departures in one commit the second's record is lost", "TestWatchGuarantees", "", "has the cause unknown"},
	{"ignore-compaction", "a watch resumes from a revision that is forgotten, silently", "TestWatchGuarantees", "", "of no reset"},
}

// P1-P9 as far as the suite holds them, test 3 of the failure analysis: eight known bugs, brought
// back one at a time by a build with the tag brown, are each found, with as few seeds as it
// takes; and the same builds without a bug pass, so what was found is the bug.
func TestBrownMMs(t *testing.T) {
	if os.Getenv("NEARSIDE_ATTEMPT") != "" {
		t.Skip("this process is one run of the suite against a known bug; the TestBrownMMs that started it judges the outcome, and would start itself for ever from here")
	}
	seed := cluster.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 3))
	tries := 4
	long := os.Getenv("NEARSIDE_SOAK") != ""
	if long {
		tries = 20
	}
	lab := laboratory{t: t, binaries: map[string]string{}, server: cluster.Brown(t)}
	caught, needed := 0, []int(nil)
	for _, m := range mms {
		n, out := 0, ""
		for n < tries {
			n++
			var failed bool
			if failed, out = lab.try(m, m.bug, rng.Uint64()); failed && strings.Contains(out, m.says) {
				caught++
				needed = append(needed, n)
				break
			} else if failed {
				t.Errorf("%s: the suite failed, but does not say %q:\n%s", m.bug, m.says, tail(out))
				break
			}
			out = ""
		}
		if out == "" {
			t.Errorf("%s (%s) is not caught by %s%s in %d tries", m.bug, m.what, m.story, m.dir, tries)
			continue
		}
		t.Logf("%-17s caught by %s%s after %d seeds: %s", m.bug, m.story, m.dir, n, line(out, m.says))
	}
	slices.Sort(needed)
	if len(needed) > 0 {
		t.Logf("caught %d/%d; seeds needed: median %d, most %d", caught, len(mms), needed[len(needed)/2], needed[len(needed)-1])
	}
	// The same builds, and no bug.
	seen := map[string]bool{}
	for _, m := range mms {
		// The stories are run without a bug by themselves; a long run does so with this build too.
		if part := m.story + m.dir; !seen[part] && (long || m.dir != "") {
			seen[part] = true
			if failed, out := lab.try(m, "", rng.Uint64()); failed {
				t.Errorf("%s fails without a bug:\n%s", part, tail(out))
			}
		}
	}
}

// laboratory runs parts of the suite in processes of their own.
type laboratory struct {
	t        *testing.T
	server   string            // the brown nearside
	binaries map[string]string // of tests with the tag brown, by package
}

// try runs m's part of the suite with a bug, "" = none, and reports whether it failed.
func (l *laboratory) try(m mm, bug string, seed uint64) (failed bool, out string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 90*time.Second)
	defer cancel()
	var cmd *exec.Cmd
	if m.story != "" {
		self, err := os.Executable()
		if err != nil {
			l.t.Fatal(err)
		}
		cmd = exec.CommandContext(ctx, self, "-test.run", "^"+m.story+"$", "-test.v")
	} else {
		cmd = exec.CommandContext(ctx, l.binary(m.dir), "-test.v")
		cmd.Dir = filepath.Join("..", "..", m.dir)
	}
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), "NEARSIDE_BROWN="+bug, "NEARSIDE_BINARY="+l.server, "NEARSIDE_ATTEMPT=2s", fmt.Sprintf("NEARSIDE_SEED=%d", seed))
	b, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		l.t.Fatalf("%s did not end within 90 s:\n%s", m.story+m.dir, tail(string(b)))
	}
	return err != nil, string(b)
}

// binary returns the tests of a package, built with the tag brown.
func (l *laboratory) binary(dir string) string {
	l.t.Helper()
	if b, ok := l.binaries[dir]; ok {
		return b
	}
	b := filepath.Join(l.t.TempDir(), strings.ReplaceAll(dir, "/", "-")+".test")
	cmd := exec.CommandContext(l.t.Context(), "go", "test", "-c", "-vet=off", "-tags", "brown", "-o", b, "./"+dir)
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("building the tests of %s: %v\n%s", dir, err, out)
	}
	l.binaries[dir] = b
	return b
}

// line returns the first line of out that has s in it.
func line(out, s string) string {
	for l := range strings.Lines(out) {
		if strings.Contains(l, s) {
			l = strings.TrimSpace(l)
			return l[:min(len(l), 160)]
		}
	}
	return ""
}

func tail(out string) string { return out[max(0, len(out)-4000):] }

// A build with the tag says so, and ours does not have it, nor a trace of the bugs.
func TestABrownBuildSaysSo(t *testing.T) {
	for binary, says := range map[string]bool{cluster.Brown(t): true, cluster.Binary(t): false} {
		out, err := exec.CommandContext(t.Context(), binary, "version").CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(out), "brown (not a release)"); got != says {
			t.Errorf("%s: build tags told %v, want %v:\n%s", filepath.Base(binary), got, says, out)
		}
		program, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(program, []byte("NEARSIDE_BROWN")); got != says {
			t.Errorf("%s: it asks which bug to have: %v, want %v", filepath.Base(binary), got, says)
		}
	}
}
