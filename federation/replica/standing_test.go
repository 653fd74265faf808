package replica

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// Hearsay is bounded, and what cannot be meant is not taken for a word.
func TestPlausibleStandings(t *testing.T) {
	in := []Standing{
		{Region: "eu-west", Link: "down", Probes: "silent", AgeMS: 7},
		{Region: "eu-west", Link: "up"},
		{Region: "us-east", Link: "sideways", Probes: "loud", AgeMS: -1},
		{Region: "Not A Region", Link: "down"},
		{Region: api.Region(strings.Repeat("x", 10_000)), Link: "down"},
		{Region: "ap-south", AgeMS: math.MaxInt64},
	}
	got := PlausibleStandings(in)
	if len(got) != 3 || got[0] != in[0] || got[1] != (Standing{Region: "us-east"}) || got[2].AgeMS <= 0 || got[2].AgeMS > maxStreamMS {
		t.Fatalf("%+v", got)
	}
	for i := range 3 * MaxStandings {
		in = append(in, Standing{Region: api.Region(fmt.Sprintf("r%d", i))})
	}
	if n := len(PlausibleStandings(in)); n > MaxStandings {
		t.Fatalf("%d are kept", n)
	}
}
