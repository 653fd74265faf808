package cli

import (
	"errors"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P3: what was never heard of is not young, whatever its age says.
func TestARegionNeverHeardOfIsOlderThanAnyLimit(t *testing.T) {
	unknown := api.Origin{Region: "ap-south", AgeMS: 200, State: api.AgeExpired, Source: api.SourceNone}
	old, region := oldest([]api.Origin{originEU, unknown}, nil)
	if old != never || region != "ap-south" {
		t.Fatalf("oldest is %s, %s", region, old)
	}
	s := &session{maxStale: time.Hour}
	var e *cliError
	if err := s.checkAge(old, "what is known of ap-south"); !errors.As(err, &e) || e.exit != ExitStale {
		t.Errorf("got %v", err)
	}
	if got := age(old).text; got != "never" {
		t.Errorf("shown as %q", got)
	}
}
