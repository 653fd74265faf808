package replica

import "strings"

// Features are what one side of a stream can do beyond the version of the frames that both
// speak. The reader names its own in the request, the origin its own in the hello; each uses
// only what the other named, and ignores names that it does not know. So both ends may grow
// without a new version. The text form is a list with commas.
type Features uint

// The features.
const (
	// CanHashes: the reader answers a frame of kind Hashes with a summary.Holding, and takes
	// snapshots that patch; the origin asks so. Both know more than summary.Buckets buckets.
	CanHashes Features = 1 << iota
	// CanAges: the reader adds what a frame says of its own age (Frame.AgeMS). One that does not gets
	// no heartbeat while there would be much to add.
	CanAges

	// CanLoad: the reader takes frames of kind Load, and the origin sends them.
	CanLoad

	// Able is what this program can do.
	Able = CanHashes | CanAges | CanLoad
)

var featureNames = []string{"hashes", "ages", "load"}

// Has reports whether all of x are in f.
func (f Features) Has(x Features) bool { return f&x == x }

// String returns the text form.
func (f Features) String() string {
	var names []string
	for i, n := range featureNames {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, ",")
}

// MarshalText writes the text form.
func (f Features) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads the text form. It never fails: unknown names are of newer programs.
func (f *Features) UnmarshalText(b []byte) error {
	*f = 0
	for name := range strings.SplitSeq(string(b), ",") {
		for i, n := range featureNames {
			if n == name {
				*f |= 1 << i
			}
		}
	}
	return nil
}
