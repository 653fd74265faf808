//go:build !linux

package nearside

import "time"

// sinceBoot is not known here; see elapsed.
func sinceBoot() time.Duration { return -1 }
