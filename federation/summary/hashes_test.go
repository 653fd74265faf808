package summary_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

func service(n int) api.ServiceKey {
	return api.ServiceKey{Namespace: "default", Service: api.ServiceName(fmt.Sprintf("s%d", n))}
}

// The finer buckets are parts of the coarse ones, so that either side may fold its digests; and
// a set of any fineness holds exactly the rows whose digests differ.
func TestFineBucketsFold(t *testing.T) {
	for _, rows := range []int{0, 100, 16_384, 16_385, 100_000, 1_000_000} {
		n := summary.FineBuckets(rows)
		if n < summary.Buckets || n > summary.MaxBuckets || n < summary.MaxBuckets && rows > n*16 {
			t.Fatal(rows, n)
		}
	}
	fine, coarse := summary.NewSums(8*summary.Buckets), summary.NewSums(summary.Buckets)
	for i := range 5000 {
		fine.Add(service(i), summary.Hash(i*i))
		coarse.Add(service(i), summary.Hash(i*i))
	}
	if !bytes.Equal(fine.Fold().Bytes(), coarse.Bytes()) || fine.Total() != coarse.Total() {
		t.Fatal("they do not fold")
	}
	other := append(summary.Sums{}, fine...)
	other.Add(service(7), 1)
	set := fine.Differ(other)
	if set.Len() != 1 || !set.Holds(service(7)) || set.Of() != len(fine) {
		t.Fatal(set.Len())
	}
	text, _ := set.MarshalText()
	var back summary.BucketSet
	if err := back.UnmarshalText(text); err != nil || !back.Holds(service(7)) || back.Len() != 1 {
		t.Fatal(err)
	}
}

// P8: whatever a peer sends as digests, as hashes of rows, or as a set of buckets is read as what
// it says or refused, and what is read is written the same again.
func FuzzHolding(f *testing.F) {
	set := summary.NewBucketSet(2 * summary.Buckets)
	set.Add(service(3))
	f.Add((&summary.Holding{Set: set, Rows: summary.Hashes{1, 2, 3}}).Bytes())
	f.Add(summary.NewSums(summary.Buckets).Bytes())
	f.Add([]byte{0, 0, 0, 0x80, 1})
	f.Add([]byte{0, 4, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		if h, err := summary.ReadHolding(in); err == nil {
			if !bytes.Equal(h.Bytes(), in) || len(in) > summary.MaxHoldingBytes(len(h.Rows)) {
				t.Fatal("it is written differently")
			}
			h.Set.Holds(service(1))
		}
		if s, err := summary.ReadSums(in); err == nil && !bytes.Equal(s.Bytes(), in) {
			t.Fatal("the digests are written differently")
		}
		var set summary.BucketSet
		if err := set.UnmarshalText(in); err == nil {
			set.Holds(service(1))
			text, _ := set.MarshalText()
			if err := set.UnmarshalText(text); err != nil {
				t.Fatal(err)
			}
		}
		var h summary.Hashes
		if err := h.UnmarshalText(in); err == nil {
			text, _ := h.MarshalText()
			var back summary.Hashes
			if err := back.UnmarshalText(text); err != nil || len(back) != len(h) {
				t.Fatal(err)
			}
		}
	})
}
