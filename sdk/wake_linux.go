package nearside

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// sinceBoot returns the time since the machine started, its sleep included; below 0 when the
// system does not tell. It has steps of 10 ms.
func sinceBoot() time.Duration {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return -1
	}
	first, _, _ := bytes.Cut(b, []byte(" "))
	s, err := strconv.ParseFloat(string(first), 64)
	if err != nil || s < 0 || s > 1e9 {
		return -1
	}
	return time.Duration(s * float64(time.Second))
}
