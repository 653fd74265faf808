package cluster

import (
	"os"
	"testing"
	"time"
)

// SoakFor returns how long a test with a long form may take for its repetitions: the
// duration in NEARSIDE_SOAK, such as 30m, or else short. `make soak` sets it.
func SoakFor(t testing.TB, short time.Duration) time.Duration {
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
