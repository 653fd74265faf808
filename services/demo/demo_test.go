package demo

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/shop"
)

func TestScheduleIsInOrderAndMakesSense(t *testing.T) {
	steps, err := parseSchedule([]string{"us-east@20s", "eu-west@5s"}, []string{"eu-west@12s"}, time.Minute)
	if err != nil || len(steps) != 3 || steps[0].region != "eu-west" || steps[1].action != restore || steps[2].region != "us-east" {
		t.Fatalf("steps %+v, %v", steps, err)
	}
	for name, c := range map[string]struct {
		kills, restores []string
		says            string
	}{
		"no time":             {[]string{"eu-west"}, nil, "REGION@TIME"},
		"not a time":          {[]string{"eu-west@soon"}, nil, "not a time"},
		"in the past":         {[]string{"eu-west@-1s"}, nil, "not a time"},
		"unknown region":      {[]string{"mars@5s"}, nil, "us-east, eu-west, ap-south"},
		"after the end":       {[]string{"eu-west@60s"}, nil, "not before the end"},
		"killed twice":        {[]string{"eu-west@5s", "eu-west@6s"}, nil, "down already"},
		"restored while up":   {nil, []string{"eu-west@5s"}, "not down"},
		"restored beforehand": {[]string{"eu-west@9s"}, []string{"eu-west@5s"}, "not down"},
	} {
		_, err := parseSchedule(c.kills, c.restores, time.Minute)
		var u *usageError
		if !errors.As(err, &u) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v does not say %q", name, err, c.says)
		}
	}
}

// tick is one second of a caller that was served payments by the regions in turn.
func tick(requests, failed int64, at time.Time, to ...api.Region) shop.Tick {
	tk := shop.Tick{Requests: requests, Failed: failed, Safe: requests, SafeFailed: failed}
	for i, r := range to {
		tk.Moves = append(tk.Moves, shop.Move{Time: at.Add(time.Duration(i) * time.Millisecond), To: r})
	}
	return tk
}

func TestReportMeasuresFailOverAndFailBack(t *testing.T) {
	r := newReport()
	t0 := time.Now()
	r.add("ap-south", tick(40, 0, t0, "eu-west"))
	r.add("us-east", tick(40, 0, t0, "us-east"))
	r.add("eu-west", tick(40, 3, t0, "eu-west"))
	r.killed("eu-west", t0.Add(time.Second))
	r.add("ap-south", tick(40, 0, t0.Add(1250*time.Millisecond), "us-east"))
	r.restored("eu-west", t0.Add(5*time.Second))
	r.add("ap-south", tick(40, 0, t0.Add(6*time.Second), "eu-west", "us-east", "eu-west"))
	r.add("ap-south", shop.Tick{Summary: &shop.Summary{Final: true, LongestGapMS: 120}})
	s := r.summary(10 * time.Second)
	if s.All.Requests != 200 || s.All.SafeFailed != 3 {
		t.Errorf("all: %+v", s.All)
	}
	if s.Surviving.Requests != 160 || s.Surviving.SafeFailed != 0 || s.Surviving.LongestGap != api.Duration(120*time.Millisecond) {
		t.Errorf("failures of a killed region count as a surviving one's: %+v", s.Surviving)
	}
	f := s.Faults[0]
	if len(f.FailOver) != 1 || f.FailOver["ap-south"] != api.Duration(250*time.Millisecond) || f.FailBack["ap-south"] != api.Duration(time.Second) {
		t.Errorf("fault: %+v", f)
	}
	var out bytes.Buffer
	s.print(&out)
	for _, want := range []string{"0.25 s (ap-south lost eu-west)", "1.00 s (ap-south to eu-west", "0.12 s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, out.String())
		}
	}
}

func TestACallerThatNeverLeftIsSaidToBeSo(t *testing.T) {
	r := newReport()
	t0 := time.Now()
	r.add("ap-south", tick(40, 0, t0, "eu-west"))
	r.killed("eu-west", t0.Add(time.Second))
	var out bytes.Buffer
	r.summary(time.Second).print(&out)
	if !strings.Contains(out.String(), "did not happen (ap-south lost eu-west)") {
		t.Errorf("report:\n%s", out.String())
	}
}

func TestWelcomeFitsTheScreen(t *testing.T) {
	w := &world{notes: []string{"a", "b", "c", "d"}}
	for _, r := range regions {
		w.places = append(w.places, &place{region: r, http: "127.0.0.1:1"})
	}
	var out bytes.Buffer
	w.welcome(&out, "nearside", "/tmp/x", time.Second)
	if n := strings.Count(out.String(), "\n"); n > 25 {
		t.Errorf("%d lines", n)
	}
}
