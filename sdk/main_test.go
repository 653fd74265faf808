package nearside

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the package when a goroutine is left after its tests: nothing of a
// client may run after Close.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
