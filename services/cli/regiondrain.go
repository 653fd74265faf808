package cli

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

// drainLook is how often a drain that is waited for is looked at.
const drainLook = time.Second

// regionDrainFlags are the flags of region drain.
type regionDrainFlags struct {
	percent, belowPassing float64
	over, wait            time.Duration
	steps, regionsBelow   int
	at, until, note       string
	status                bool
}

func (a *app) regionDrainCommand() *cobra.Command {
	var f regionDrainFlags
	c := &cobra.Command{
		Use:   "drain REGION",
		Short: "Send less traffic to a region, in steps over a time, or show where that stands",
		Long: `Send less traffic to a region. Asked of a node of the region itself it is an evacuation: the
other regions follow with their next heartbeat. Asked of another region's it is for the
callers of that region alone, and works when the drained region's registry is dead.

The percentage is reached in --steps equal steps within --over, beginning now or --at, from where it
stands; the same command again changes nothing. It stays until "region undrain", or --until. With
an abort rule it undoes itself when the rule has held for 5 seconds. Residency (policies) is not
weakened, and nobody is left without an answer: when every region is drained, callers use what
there is.

--wait follows it until it holds, for so long at most. "nearside drain" drains an instance.`,
		Example: `  nearside region drain eu-west --percent 100 --over 10m --abort-below-passing 80 --note "power works"
  nearside region drain eu-west --percent 50 --wait 1m
  nearside region drain eu-west --percent 100 --at 2026-11-23T22:00:00Z --until 2026-11-24T04:00:00Z
  nearside region drain eu-west --status`,
		Args:              argCount(1, 1, "the region"),
		ValidArgsFunction: a.completeRegions,
		RunE:              a.verb(func(ctx context.Context, s *session, args []string) error { return s.drainRegion(ctx, args[0], f) }),
	}
	fs := c.Flags()
	fs.Float64Var(&f.percent, "percent", 0, "how much less of its traffic the region is to get in the end, 0 to 100")
	fs.DurationVar(&f.over, "over", 0, "time in which that is reached; 0s = at once, at most 24h")
	fs.IntVar(&f.steps, "steps", api.DefaultDrainSteps, "equal steps, 1 to 100")
	fs.StringVar(&f.at, "at", "", "when it begins: RFC 3339 such as 2026-11-23T22:00:00Z, or in so long (30m); default now")
	fs.StringVar(&f.until, "until", "", "when it is undone by itself: as --at; default by hand")
	fs.Float64Var(&f.belowPassing, "abort-below-passing", 0, "undo it when fewer than this percentage of the instances that take the traffic are usable; 0 = never")
	fs.IntVar(&f.regionsBelow, "abort-regions-below", 0, "undo it when fewer than this many regions that take the traffic can be reached; 0 = never")
	fs.StringVar(&f.note, "note", "", "why, for whoever looks at the region")
	fs.BoolVar(&f.status, "status", false, "show where it stands, and change nothing")
	fs.DurationVar(&f.wait, "wait", 0, "follow it for so long until it holds (exit 8 when it does not); 0 = do not wait")
	withoutEnv(fs, "percent", "over", "steps", "at", "until", "abort-below-passing", "abort-regions-below", "note", "status", "wait")
	return c
}

func (a *app) regionUndrainCommand() *cobra.Command {
	var over, wait time.Duration
	c := &cobra.Command{
		Use:   "undrain REGION",
		Short: "Undo the drain of a region, at once or over a time",
		Long: `Undo what the region asked decided about a region: at once, or --over a time in ten steps. What a
region decided about itself is undone there. It changes nothing where nothing is drained.`,
		Example: `  nearside region undrain eu-west
  nearside region undrain eu-west --over 10m --wait 11m`,
		Args:              argCount(1, 1, "the region"),
		ValidArgsFunction: a.completeRegions,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			if err := api.CheckRegion(args[0]); err != nil {
				return err
			}
			if wait < 0 {
				return usagef(s.cmd, "--wait %s is negative", wait)
			}
			q := url.Values{}
			if over != 0 {
				q.Set("over", over.String())
			}
			var d api.RegionDrain
			if _, err := s.client.do(ctx, http.MethodDelete, api.PathRegionDrain(api.Region(args[0])), q, &d); err != nil {
				return s.didYouMean(ctx, err, "", args[0])
			}
			return s.followDrain(ctx, d, wait)
		}),
	}
	c.Flags().DurationVar(&over, "over", 0, "time over which traffic comes back; 0s = at once, at most 24h")
	c.Flags().DurationVar(&wait, "wait", 0, "follow it for so long until nothing is drained (exit 8 when it is still); 0 = do not wait")
	withoutEnv(c.Flags(), "over", "wait")
	return c
}

func (s *session) drainRegion(ctx context.Context, region string, f regionDrainFlags) error {
	if err := api.CheckRegion(region); err != nil {
		return err
	}
	changed := s.cmd.Flags().Changed
	path := api.PathRegionDrain(api.Region(region))
	var d api.RegionDrain
	if f.status {
		for _, name := range []string{"percent", "over", "steps", "at", "until", "abort-below-passing", "abort-regions-below", "note"} {
			if changed(name) {
				return usagef(s.cmd, "--status changes nothing: --%s means nothing to it", name)
			}
		}
		if _, err := s.client.get(ctx, path, nil, &d); err != nil {
			return s.didYouMean(ctx, err, "", region)
		}
		return s.followDrain(ctx, d, f.wait)
	}
	req, err := f.request(s)
	if err != nil {
		return err
	}
	if err := s.client.sendJSON(ctx, http.MethodPut, path, nil, req, &d); err != nil {
		return s.didYouMean(ctx, err, "", region)
	}
	return s.followDrain(ctx, d, f.wait)
}

// request reads the flags.
func (f *regionDrainFlags) request(s *session) (api.DrainRequest, error) {
	r := api.DrainRequest{Percent: f.percent, Over: api.Duration(f.over), Steps: f.steps, Note: f.note}
	switch {
	case !s.cmd.Flags().Changed("percent"):
		return r, usagef(s.cmd, "--percent is missing: 0 to 100; or --status")
	case math.IsNaN(f.percent) || f.percent < 0 || f.percent > 100:
		return r, usagef(s.cmd, "--percent %v is out of range: 0 to 100", f.percent)
	case f.wait < 0:
		return r, usagef(s.cmd, "--wait %s is negative", f.wait)
	case f.steps < 1:
		return r, usagef(s.cmd, "--steps %d is out of range: 1 to %d", f.steps, api.MaxDrainSteps)
	}
	if f.belowPassing != 0 || f.regionsBelow != 0 {
		r.Abort = &api.DrainAbort{BelowPassing: f.belowPassing, RegionsBelow: f.regionsBelow}
	}
	for _, t := range []struct {
		flag, value string
		to          **time.Time
	}{{"at", f.at, &r.At}, {"until", f.until, &r.Until}} {
		if t.value == "" {
			continue
		}
		when, err := s.moment(t.value)
		if err != nil {
			return r, usagef(s.cmd, "--%s %s is no time: write 2026-11-23T22:00:00Z, or 30m for in so long", t.flag, api.Quote(t.value))
		}
		*t.to = &when
	}
	return r, nil
}

// moment reads a point in time, or how long it is until then.
func (s *session) moment(v string) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return s.now().Add(d).UTC(), nil
	}
	return time.Parse(time.RFC3339, v)
}

// followDrain prints a drain, after it came where it goes when that is waited for.
func (s *session) followDrain(ctx context.Context, d api.RegionDrain, wait time.Duration) error {
	var late error
	if wait > 0 {
		d, late = s.awaitDrain(ctx, d, wait)
		if late != nil && asCLI(late).exit != ExitTimeout && asCLI(late).exit != ExitFalse {
			return late
		}
	}
	if err := s.out.print(view{data: d, names: []string{string(d.Region)}, text: func(t *sheet) { s.describeDrain(t, d) }}); err != nil {
		return err
	}
	if d.Warning != "" && !s.out.machine() {
		s.note("warning: %s", d.Warning)
	}
	return late
}

// awaitDrain looks at a drain until it neither is planned nor moves, and tells each step.
func (s *session) awaitDrain(ctx context.Context, d api.RegionDrain, wait time.Duration) (api.RegionDrain, error) {
	within, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	look := time.NewTicker(drainLook)
	defer look.Stop()
	told := ""
	for {
		if line := drainLine(d); line != told {
			told = line
			s.note("%s: %s", d.Region, line)
		}
		switch d.State {
		case api.DrainHolding, api.DrainEnded:
			return d, nil
		case api.DrainAborted:
			return d, &cliError{exit: ExitFalse, detail: fmt.Sprintf("the drain of %s gave itself up: %s", d.Region, d.Why), remedy: "when that is over, drain it again"}
		}
		select {
		case <-look.C:
		case <-within.Done():
			if ctx.Err() != nil {
				return d, ctx.Err()
			}
			return d, &cliError{
				exit: ExitTimeout, detail: fmt.Sprintf("the drain of %s is still %s after %s: %s", d.Region, d.State, wait, told),
				remedy: "it goes on by itself: see nearside region drain " + string(d.Region) + " --status; or undo it: nearside region undrain " + string(d.Region),
			}
		}
		var now api.RegionDrain
		if _, err := s.client.get(within, api.PathRegionDrain(d.Region), nil, &now); err != nil {
			if within.Err() == nil && !retryable(err) {
				return d, err
			}
			continue
		}
		d = now
	}
}

// drainLine is where a drain stands, on one line.
func drainLine(d api.RegionDrain) string {
	switch d.State {
	case api.DrainScheduled:
		return fmt.Sprintf("%s drained; to %s from %s on", percentText(d.Now), percentText(d.Percent), d.Started.UTC().Format(time.RFC3339))
	case api.DrainMoving:
		return fmt.Sprintf("%s drained, on the way to %s", percentText(d.Now), percentText(d.Percent))
	case api.DrainHolding:
		return percentText(d.Now) + " drained, holding"
	case api.DrainAborted:
		return "gave itself up: " + d.Why
	}
	return "not drained"
}

func (s *session) describeDrain(t *sheet, d api.RegionDrain) {
	pairs := [][2]string{{"region", string(d.Region)}, {"drain", drainLine(d)}}
	if d.Effective != d.Now {
		pairs = append(pairs, [2]string{"in force", percentText(d.Effective)})
	}
	pairs = append(pairs, [2]string{"decided by", string(d.By)})
	if !d.Started.IsZero() {
		way := "at once"
		if d.Over > 0 {
			way = fmt.Sprintf("over %s in %d steps", d.Over.D(), d.Steps)
		}
		pairs = append(pairs, [2]string{"way", fmt.Sprintf("%s to %s, %s, from %s", percentText(d.From), percentText(d.Percent), way, d.Started.UTC().Format(time.RFC3339))})
	}
	if d.Until != nil {
		pairs = append(pairs, [2]string{"until", d.Until.UTC().Format(time.RFC3339)})
	}
	if a := d.Abort; a != nil {
		rule := ""
		if a.BelowPassing > 0 {
			rule = "fewer than " + percentText(a.BelowPassing) + " of the instances that take the traffic are usable"
		}
		if a.RegionsBelow > 0 {
			if rule != "" {
				rule += ", or "
			}
			rule += fmt.Sprintf("fewer than %d regions that take it can be reached", a.RegionsBelow)
		}
		pairs = append(pairs, [2]string{"abort when", rule})
	}
	for _, p := range [][2]string{{"why", d.Why}, {"note", d.Note}, {"by", d.Actor}} {
		if p[1] != "" {
			pairs = append(pairs, p)
		}
	}
	t.pairs(pairs)
}

func percentText(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) + "%" }

// drainedCell is how much of a region's traffic goes elsewhere, in a table.
func drainedCell(o api.Origin) cell {
	if o.Drained == 0 {
		return text("")
	}
	return cell{text: percentText(o.Drained), paint: yellow}
}
