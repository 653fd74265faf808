package api

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing of the package is left running when its tests end.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
