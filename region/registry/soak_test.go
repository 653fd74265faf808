package registry

import (
	"os"
	"testing"
	"time"
)

// soakFor returns how long a test with a long form may take for its repetitions: the duration
// in NEARSIDE_SOAK, which `make soak` sets, or else short.
func soakFor(t testing.TB, short time.Duration) time.Duration {
	t.Helper()
	v := os.Getenv("NEARSIDE_SOAK")
	if v == "" {
		return short
	}
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		t.Fatalf("NEARSIDE_SOAK=%q is no duration; write one such as 30m", v)
	}
	return max(d, short)
}
