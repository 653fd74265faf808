package summary_test

import (
	"fmt"
	"testing"

	"github.com/nearside/nearside/federation/summary"
)

// I1: the seal of a set does not hang on the order in which rows came and went, and differs from that of any
// other set that was tried.
func TestSealStandsForTheSet(t *testing.T) {
	row := func(i int) summary.Sum { return summary.SumOf([]byte(fmt.Sprint("row ", i))) }
	var a, b summary.Seal
	seen := map[summary.Sum]bool{}
	for i := range 200 {
		a.Add(row(i))
		if seen[a.Sum()] {
			t.Fatal("two sets have one seal")
		}
		seen[a.Sum()] = true
	}
	for i := 250; i >= 0; i-- {
		b.Add(row(i))
	}
	for i := 200; i <= 250; i++ {
		b.Remove(row(i))
	}
	if a != b || a.Sum() != b.Sum() {
		t.Fatal("the order matters")
	}
	a.Add(row(7))
	if a.Sum() == b.Sum() {
		t.Fatal("a row told twice counts once")
	}
}

func BenchmarkSeal(b *testing.B) {
	var s summary.Seal
	row := summary.SumOf(make([]byte, 650))
	b.ReportAllocs()
	for b.Loop() {
		s.Add(row)
	}
}
