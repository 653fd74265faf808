package origin

import (
	"slices"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Comparison tells a reader in which rows what it holds may differ from what it should hold.
// It is true of one version of the origin, and says enough to compare with an older one that the
// reader holds: a row that changed in between is on its way and proves nothing.
type Comparison struct {
	Epoch    api.Epoch      `json:"epoch"`
	Revision uint64         `json:"revision"`
	Digest   summary.Digest `json:"digest"`
	Rows     int            `json:"rows"`
	// Follows: the origin knows what changed since the version that the reader told. When
	// it does not, only equal digests prove anything.
	Follows bool `json:"follows"`
	// Moving counts the rows that changed since.
	Moving int `json:"moving"`
	// Buckets are those that are compared row by row: all that differ, or with More some of
	// them. Marks has every row in them that did not change, Changed those that did.
	Buckets *summary.BucketSet `json:"buckets,omitempty"`
	Marks   []Mark             `json:"marks,omitempty"`
	Changed []string           `json:"changed,omitempty"`
	More    bool               `json:"more,omitempty"`
}

// Mark is a row and its hash.
type Mark struct {
	Key  string       `json:"key"`
	Hash summary.Hash `json:"hash"`
}

// MaxMarks bounds a comparison: buckets are added while there are fewer rows in it.
const MaxMarks = 4_096

// Compare looks at what a reader holds at a version, by the digests of its buckets.
func (b *Book) Compare(src Source, have api.Version, sums summary.Sums) Comparison {
	b.mu.Lock()
	defer b.mu.Unlock()
	keys, p, ok := b.since(have, b.page(src), src)
	c := Comparison{
		Epoch: p.Version.Epoch, Revision: p.Version.Revision, Digest: p.Digest, Rows: p.Rows,
		Follows: ok, Moving: len(keys),
	}
	ours := summary.NewSums(summary.Buckets)
	for k, r := range b.rows {
		ours.Add(k, r.hash)
	}
	differ := ours.Differ(sums.Fold())
	if differ.Len() == 0 || !ok {
		return c
	}
	moved := make(map[api.ServiceKey]struct{}, len(keys))
	for _, k := range keys {
		moved[k] = struct{}{}
	}
	var rows [summary.Buckets][]Mark
	for k, r := range b.rows {
		if n := summary.BucketOf(k); differ.Has(n) {
			if _, ok := moved[k]; !ok {
				rows[n] = append(rows[n], Mark{replica.FormatKey(k), r.hash})
			}
		}
	}
	c.Buckets = summary.NewBucketSet(summary.Buckets)
	for n := range summary.Buckets {
		switch {
		case !differ.Has(n):
		case len(c.Marks) >= MaxMarks:
			c.More = true
		default:
			c.Buckets.AddNumber(n)
			c.Marks = append(c.Marks, rows[n]...)
		}
	}
	for _, k := range keys {
		if c.Buckets.Holds(k) {
			c.Changed = append(c.Changed, replica.FormatKey(k))
		}
	}
	slices.SortFunc(c.Marks, func(a, b Mark) int { return slices.Compare([]byte(a.Key), []byte(b.Key)) })
	return c
}
