//go:build brown

package liveness

import "os"

// brown is the known bug that this build has; see sound.go.
var brown = os.Getenv("NEARSIDE_BROWN")
