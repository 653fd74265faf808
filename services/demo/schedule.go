package demo

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// regions of the demo, in port order. Payments runs in the first two only, so that a call
// to another region is part of normal life in the third.
var regions = []api.Region{"us-east", "eu-west", "ap-south"}

func hasPayments(r api.Region) bool { return r != "ap-south" }

// usageError is a wrong flag: exit code 2.
type usageError struct{ detail, remedy string }

func (e *usageError) Error() string { return e.detail + "; " + e.remedy }
func (e *usageError) ExitCode() int { return 2 }

// action is what the schedule does to a region.
type action string

const (
	kill    action = "kill"
	restore action = "restore"
)

// step is one scheduled action, at a time after the demo is ready.
type step struct {
	action action
	region api.Region
	at     time.Duration
}

// parseSchedule reads REGION@TIME of both flags and returns the steps in order. It refuses
// unknown regions, times beyond the duration, and a restore of what is not down.
func parseSchedule(kills, restores []string, duration time.Duration) ([]step, error) {
	var steps []step
	for _, f := range []struct {
		action action
		values []string
	}{{kill, kills}, {restore, restores}} {
		for _, v := range f.values {
			s, err := parseStep(f.action, v)
			if err != nil {
				return nil, err
			}
			if duration > 0 && s.at >= duration {
				return nil, &usageError{fmt.Sprintf("--%s %s is not before the end at %s", f.action, v, duration), "use an earlier time or a longer --duration"}
			}
			steps = append(steps, s)
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	down := map[api.Region]bool{}
	for _, s := range steps {
		switch {
		case s.action == kill && down[s.region]:
			return nil, &usageError{fmt.Sprintf("--kill %s@%s: it is down already then", s.region, s.at), "restore it in between"}
		case s.action == restore && !down[s.region]:
			return nil, &usageError{fmt.Sprintf("--restore %s@%s: it is not down then", s.region, s.at), "kill it earlier with --kill"}
		}
		down[s.region] = s.action == kill
	}
	return steps, nil
}

func parseStep(a action, v string) (step, error) {
	region, at, ok := strings.Cut(v, "@")
	if !ok {
		return step{}, &usageError{fmt.Sprintf("--%s %s is not REGION@TIME", a, api.Quote(v)), "write it like eu-west@15s"}
	}
	if err := known(region); err != nil {
		return step{}, err
	}
	d, err := time.ParseDuration(at)
	if err != nil || d < 0 {
		return step{}, &usageError{fmt.Sprintf("--%s %s: %s is not a time", a, api.Quote(v), api.Quote(at)), "write it like 15s"}
	}
	return step{action: a, region: api.Region(region), at: d}, nil
}

func known(region string) error {
	if slices.Contains(regions, api.Region(region)) {
		return nil
	}
	names := make([]string, len(regions))
	for i, r := range regions {
		names[i] = string(r)
	}
	return &usageError{fmt.Sprintf("there is no region %s in the demo", api.Quote(region)), "use " + strings.Join(names, ", ")}
}
