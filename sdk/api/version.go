package api

import (
	"fmt"
	"strconv"
	"strings"
)

// Epoch names one history of a region. It changes when history restarts: wiped or
// restored data. Generation orders epochs; Nonce tells two histories of the same
// generation apart (such a collision is cured by the origin, which moves to a higher one).
//
// The text form is "generation-nonce" with the nonce as 16 hex digits, "3-00f1e2d3c4b5a697".
type Epoch struct {
	Generation uint64
	Nonce      uint64
}

// IsZero reports whether e is unset.
func (e Epoch) IsZero() bool { return e == Epoch{} }

// String returns the text form; the zero epoch is "".
func (e Epoch) String() string {
	if e.IsZero() {
		return ""
	}
	var b [37]byte
	out := append(strconv.AppendUint(b[:0], e.Generation, 10), '-')
	for shift := 60; shift >= 0; shift -= 4 {
		out = append(out, "0123456789abcdef"[e.Nonce>>shift&15])
	}
	return string(out)
}

// ParseEpoch reads the text form; "" is the zero epoch.
func ParseEpoch(s string) (Epoch, error) {
	if s == "" {
		return Epoch{}, nil
	}
	g, n, ok := strings.Cut(s, "-")
	gen, err1 := strconv.ParseUint(g, 10, 64)
	nonce, err2 := strconv.ParseUint(n, 16, 64)
	if !ok || err1 != nil || err2 != nil || len(n) != 16 {
		return Epoch{}, fmt.Errorf("epoch %s is not of the form generation-nonce", Quote(s))
	}
	return Epoch{Generation: gen, Nonce: nonce}, nil
}

// MarshalText writes the text form.
func (e Epoch) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText reads the text form.
func (e *Epoch) UnmarshalText(b []byte) (err error) {
	*e, err = ParseEpoch(string(b))
	return err
}

// Version is a place in one region's history. Versions are comparable within one region
// only. The text form is "region/epoch/revision"; the zero version is "".
type Version struct {
	Region   Region `json:"region"`
	Epoch    Epoch  `json:"epoch"`
	Revision uint64 `json:"revision"`
}

// IsZero reports whether v is unset.
func (v Version) IsZero() bool { return v == Version{} }

// String returns the text form.
func (v Version) String() string {
	if v.IsZero() {
		return ""
	}
	return string(v.Region) + "/" + v.Epoch.String() + "/" + strconv.FormatUint(v.Revision, 10)
}

// ParseVersion reads the text form; "" is the zero version.
func ParseVersion(s string) (Version, error) {
	if s == "" {
		return Version{}, nil
	}
	bad := fmt.Errorf("version %s is not of the form region/epoch/revision", Quote(s))
	parts := strings.Split(s, "/")
	if len(parts) != 3 || !ValidLabel(parts[0]) {
		return Version{}, bad
	}
	e, err := ParseEpoch(parts[1])
	if err != nil || e.IsZero() {
		return Version{}, bad
	}
	rev, err := strconv.ParseUint(parts[2], 10, 64)
	if err != nil {
		return Version{}, bad
	}
	return Version{Region: Region(parts[0]), Epoch: e, Revision: rev}, nil
}

// Order is the relation of two versions of one region.
type Order int

// The relations of two versions. Conflict means the same generation with another nonce:
// two histories that cannot be ordered until the origin moves to a higher generation.
const (
	Older Order = iota
	Same
	Newer
	Conflict
)

// Compare returns how v relates to w. Both must be of the same region.
func (v Version) Compare(w Version) Order {
	if v.Epoch != w.Epoch {
		switch {
		case v.Epoch.Generation > w.Epoch.Generation:
			return Newer
		case v.Epoch.Generation < w.Epoch.Generation:
			return Older
		default:
			return Conflict
		}
	}
	switch {
	case v.Revision > w.Revision:
		return Newer
	case v.Revision < w.Revision:
		return Older
	}
	return Same
}
