package api

import (
	"fmt"
	"math"
	"strconv"
)

// MaxLoadPercent bounds a reported load.
const MaxLoadPercent = 1000

// Load is how much of what it can take an instance is used, in percent: 0 to MaxLoadPercent, 100
// is all that it can take. The zero value is "not told"; JSON has a number, or leaves it out.
type Load uint16

// LoadOf returns the Load of a percentage, cut to its range.
func LoadOf(percent int) Load { return Load(min(max(percent, 0), MaxLoadPercent) + 1) }

// Percent returns the percentage; told is false when there is none.
func (l Load) Percent() (percent int, told bool) { return int(l) - 1, l > 0 }

// IsZero reports whether nothing is told.
func (l Load) IsZero() bool { return l == 0 }

// MarshalJSON writes the number; null when nothing is told.
func (l Load) MarshalJSON() ([]byte, error) {
	if p, told := l.Percent(); told {
		return strconv.AppendInt(nil, int64(p), 10), nil
	}
	return []byte("null"), nil
}

// UnmarshalJSON reads a whole number in range.
func (l *Load) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*l = 0
		return nil
	}
	n, err := strconv.Atoi(string(b))
	if err != nil || n < 0 || n > MaxLoadPercent {
		return fmt.Errorf("load %s: write it as a whole number of percent, 0 to %d", Quote(string(b)), MaxLoadPercent)
	}
	*l = LoadOf(n)
	return nil
}

// The classes in which the load of a service is told, within a region and to others: it changes
// all the time, and nobody should decide anew for a trembling.
const (
	// LoadStep is the width of a class, in percent, and LoadSlack how far beyond its border a
	// value must be to leave it.
	LoadStep  = 5
	LoadSlack = 2
	// MaxLoadClass is the highest class: more than twice what a service can take is all the same.
	MaxLoadClass = 200
)

// LoadClass returns the class of a utilisation in percent: the multiple of LoadStep at or above
// it, LoadStep to MaxLoadClass. old is the class of before, 0 = none; a value that is not clearly
// outside of it stays in it.
func LoadClass(old int, percent float64) int {
	if math.IsNaN(percent) || percent < 0 {
		percent = 0
	}
	percent = min(percent, MaxLoadClass)
	if old > 0 && percent > float64(old-LoadStep-LoadSlack) && percent <= float64(old+LoadSlack) {
		return old
	}
	return max(int(math.Ceil(percent/LoadStep))*LoadStep, LoadStep)
}
