package grpcresolver

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the package when a goroutine is left after its tests: nothing of a channel may
// run after its Close.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
