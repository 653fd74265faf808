package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) regionsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "regions [NAME]",
		Short: "List the regions as the node sees them, or show one",
		Long: `List the regions as the node sees them: how old its knowledge of each is, whether the
link is up, and what runs there. With NAME, show one, and the eviction brake of the node's own.`,
		Example: `  nearside regions
  nearside regions eu-west
  nearside regions --max-stale 30s   # exit 9 when a region has been silent for longer`,
		Args:              argCount(0, 1, "the region"),
		ValidArgsFunction: a.completeRegions,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			if len(args) == 1 {
				return s.region(ctx, args[0])
			}
			return s.regions(ctx)
		}),
	}
}

// regions prints GET /v1/regions.
func (s *session) regions(ctx context.Context) error {
	var list api.RegionList
	if _, err := s.client.get(ctx, api.PathRegions, s.only(), &list); err != nil {
		return err
	}
	v := view{data: list, lines: []any{}}
	var (
		rows  [][]cell
		views []api.Origin
	)
	for _, r := range list.Regions {
		v.lines = append(v.lines, r)
		v.names = append(v.names, string(r.Region))
		views = append(views, r.Origin)
		rows = append(rows, []cell{
			text(string(r.Region)), ageState(r.State), link(r), age(ageOf(r.Origin)), number(r.Services), number(r.Instances),
			passingOf(r.Passing, r.Instances), roundTrip(r.RTTMS), text(r.Epoch.String()), drainedCell(r.Origin),
			text(strconv.FormatUint(r.Revision, 10)), text(r.Source), text(strings.Join(r.Addresses, ",")),
		})
	}
	v.text = func(t *sheet) {
		columns := narrow("REGION", "STATE", "LINK", "AGE", "SERVICES", "INSTANCES", "PASSING", "RTT", "EPOCH", "DRAINED")
		t.table(append(columns, wideOnly("REVISION", "SOURCE", "ADDRESSES")...), rows)
	}
	if err := s.out.print(v); err != nil {
		return err
	}
	if !s.out.machine() {
		for _, r := range list.Regions {
			if r.Protection != nil && r.Protection.Active {
				s.note("%s: protection is on: %s", r.Region, r.Protection.Why)
			}
		}
	}
	old, region := oldest(views, nil)
	return s.checkAge(old, "what is known of "+string(region))
}

// link is the state of the link to a region; "self" for the node's own.
func link(r api.RegionInfo) cell {
	switch {
	case r.Self:
		return text("self")
	case r.Down:
		return cell{text: "down", paint: red}
	case r.Link == "unreachable":
		return cell{text: r.Link, paint: red}
	}
	return text(r.Link)
}

// region prints GET /v1/regions/{region}.
func (s *session) region(ctx context.Context, name string) error {
	if err := api.CheckRegion(name); err != nil {
		return err
	}
	var r api.RegionInfo
	if _, err := s.client.get(ctx, api.PathRegion(api.Region(name)), s.only(), &r); err != nil {
		return s.didYouMean(ctx, err, "", name)
	}
	if err := s.out.print(view{data: r, names: []string{string(r.Region)}, text: func(t *sheet) { s.describeRegion(t, r) }}); err != nil {
		return err
	}
	return s.checkAge(ageOf(r.Origin), "what is known of "+string(r.Region))
}

func (s *session) describeRegion(t *sheet, r api.RegionInfo) {
	knowledge := fmt.Sprintf("%s, confirmed %s ago", r.State, shortDuration(milliseconds(r.AgeMS)))
	if r.Epoch.IsZero() {
		knowledge = "none: it was never heard of"
	} else if !r.Complete {
		knowledge += ", not complete"
	}
	pairs := [][2]string{
		{"region", string(r.Region)},
		{"knowledge", knowledge},
		{"link", shown(link(r))},
	}
	if r.Drained > 0 {
		pairs = append(pairs, [2]string{"drained", percentText(r.Drained)})
	}
	if r.RTTMS > 0 {
		pairs = append(pairs, [2]string{"round trip", roundTrip(r.RTTMS).text})
	}
	if d := r.Verdict; d != nil {
		pairs = append(pairs, [2]string{"verdict", d.Why}, [2]string{"words", arithmetic(d)})
	}
	pairs = append(pairs,
		[2]string{"services", strconv.Itoa(r.Services)},
		[2]string{"instances", fmt.Sprintf("%d, %d of them passing", r.Instances, r.Passing)},
		[2]string{"version", fmt.Sprintf("epoch %s, revision %d", shown(text(r.Epoch.String())), r.Revision)},
	)
	if r.Source != "" {
		pairs = append(pairs, [2]string{"source", r.Source})
	}
	if len(r.Addresses) > 0 {
		pairs = append(pairs, [2]string{"addresses", strings.Join(r.Addresses, ", ")})
	}
	if p := r.Protection; p != nil {
		state := "off"
		if p.Active {
			state = "on"
			if p.Since != nil {
				state += " for " + shortDuration(s.now().Sub(*p.Since))
			}
		}
		if p.Why != "" {
			state += ": " + p.Why
		}
		pairs = append(pairs,
			[2]string{"protection", state},
			[2]string{"heartbeats", fmt.Sprintf("%d of %d overdue; %d timed out in the last %s, at most %d (%s) may", p.Overdue, p.Registered, p.Evicted, time.Duration(p.Window), p.Allowed, share(p.Share))},
		)
		if p.Grace > 0 {
			pairs = append(pairs, [2]string{"grace", fmt.Sprintf("nobody times out for another %s", shortDuration(time.Duration(p.Grace)))})
		}
	}
	t.pairs(pairs)
}
