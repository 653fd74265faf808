package replica

import (
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Mark says at which version the rows are what a saved replica has. Most versions of a quiet origin change
// none of its rows, and to write those anew for each would wear the disk; a mark is small.
type Mark struct {
	Epoch    api.Epoch      `json:"epoch"`
	Revision uint64         `json:"revision"`
	Digest   summary.Digest `json:"digest"`
}

// Mark returns that of what is held now; false when nothing is known yet.
func (r *Replica) Mark() (Mark, bool) {
	return Mark{r.version.Epoch, r.version.Revision, r.truth.Digest()}, !r.version.IsZero()
}

// Adopt moves a restored replica to the version of a mark of the same rows, so that what it shows does not
// go back (P4). It reports whether it did.
func (r *Replica) Adopt(m Mark) bool {
	if m.Epoch != r.version.Epoch || m.Revision <= r.version.Revision || m.Digest != r.truth.Digest() {
		return false
	}
	r.version.Revision = m.Revision
	return true
}
