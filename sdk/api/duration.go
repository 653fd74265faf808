package api

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Duration is a time.Duration that reads "1m30s" or a number of seconds from JSON and
// writes the string form.
type Duration time.Duration

// D returns d as a time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String returns the form of time.Duration, such as "1m30s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the string form.
func (d Duration) MarshalJSON() ([]byte, error) { return []byte(`"` + d.String() + `"`), nil }

// UnmarshalJSON reads a Go duration string or a number of seconds.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		v, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("duration %s: write it like \"15s\" or as a number of seconds", Quote(s))
		}
		*d = Duration(v)
		return nil
	}
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("duration %s: write it like \"15s\" or as a number of seconds", Quote(string(b)))
	}
	if math.Abs(f) > float64(math.MaxInt64)/float64(time.Second)/2 {
		return fmt.Errorf("duration %s is out of range", Quote(string(b)))
	}
	*d = Duration(f * float64(time.Second))
	return nil
}
