package cli

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

// whatIfFlags are what a question is made of.
type whatIfFlags struct {
	lose, zones, links, services []string
	from, failOn                 string
	limit                        int
}

func (a *app) whatIfCommand() *cobra.Command {
	var f whatIfFlags
	c := &cobra.Command{
		Use:   "whatif --lose REGION",
		Short: "Say what losing a region, a zone or a link would do, before it happens",
		Long: `Say what losing regions, zones of regions or links between regions would do to the callers of
services: which are down, where a region would get more than its instances carry, which calls
go elsewhere and with how much round-trip time. The very function that routes is asked
twice, with and without what is lost. Nothing changes by asking. Both times it remembers nothing:
while a spill by load or a way back is going on, "before" is not quite what callers do at this moment.

It is the node's own view, of callers in its region; of other callers (--from), and of all others
when its own region is lost, it knows less and says what it does not know. Ask a node of each
region whose callers matter (--addr).

Exit 4 when the condition of --fail-on holds: down (a service goes down), over (or a region gets
more than it carries) or moved (or any call goes elsewhere). Services that are down as it is
are no reason.`,
		Example: `  nearside whatif --lose eu-west
  nearside whatif --lose eu-west --fail-on down        # before an evacuation: exit 4 when something goes down
  nearside whatif --zone eu-west/a --service orders -o wide
  nearside whatif --link eu-west~us-east --from us-east`,
		Args: argCount(0, 0, ""),
		RunE: a.verb(func(ctx context.Context, s *session, _ []string) error { return s.whatIf(ctx, &f) }),
	}
	fs := c.Flags()
	fs.StringSliceVar(&f.lose, "lose", nil, "a REGION that is lost, with its callers (repeatable)")
	fs.StringSliceVar(&f.zones, "zone", nil, "a zone that is lost, as REGION/ZONE (repeatable)")
	fs.StringSliceVar(&f.links, "link", nil, "a link that is lost, as REGION~REGION (repeatable)")
	fs.StringSliceVar(&f.services, "service", nil, "this service alone, whatever becomes of it (repeatable)")
	fs.StringVar(&f.from, "from", "", "for callers in REGION or REGION/ZONE; default the node's region, or all others when that is lost")
	fs.StringVar(&f.failOn, "fail-on", "", "exit 4 when a service is down, over or moved, or worse")
	fs.IntVar(&f.limit, "limit", api.DefaultListLimit, "show at most this many services, the worst")
	withoutEnv(fs, "lose", "zone", "link", "service", "from", "fail-on", "limit")
	_ = c.RegisterFlagCompletionFunc("fail-on", cobra.FixedCompletions([]string{"down", "over", "moved"}, cobra.ShellCompDirectiveNoFileComp))
	for name, complete := range map[string]func(*session, context.Context) []string{
		"lose": (*session).regionNames, "from": (*session).regionNames, "service": (*session).serviceNames,
	} {
		_ = c.RegisterFlagCompletionFunc(name, func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return a.complete(c, complete), cobra.ShellCompDirectiveNoFileComp
		})
	}
	return c
}

// whatIf prints GET /v1/whatif, all of it.
func (s *session) whatIf(ctx context.Context, f *whatIfFlags) error {
	q, err := s.whatIfQuery(f)
	if err != nil {
		return err
	}
	all, err := s.whatIfAll(ctx, q, f.limit)
	if err != nil {
		return s.whatIfHints(ctx, err, f)
	}
	if err := s.out.print(whatIfView(all)); err != nil {
		return err
	}
	if !s.out.machine() {
		for _, n := range all.Notes {
			s.note("note: %s", n)
		}
		if all.Omitted > 0 {
			s.note("note: %d less bad ones are not shown: --limit is %d", all.Omitted, f.limit)
		}
	}
	if err := whatIfVerdict(all, api.Effect(f.failOn)); err != nil {
		return err
	}
	old, region := oldest(all.Views, nil)
	return s.checkAge(old, "what is known of "+string(region))
}

func (s *session) whatIfQuery(f *whatIfFlags) (url.Values, error) {
	q := s.only()
	switch {
	case len(f.lose)+len(f.zones)+len(f.links) == 0:
		return nil, usagef(s.cmd, "nothing is named that is to be lost: give --lose REGION, --zone REGION/ZONE or --link REGION~REGION")
	case f.failOn != "" && !slices.Contains([]string{"down", "over", "moved"}, f.failOn):
		return nil, usagef(s.cmd, "--fail-on is down, over or moved, not %s", api.Quote(f.failOn))
	case f.limit < 1 || f.limit > api.MaxListLimit:
		return nil, usagef(s.cmd, "--limit is 1 to %d", api.MaxListLimit)
	}
	for _, r := range f.lose {
		if strings.ContainsAny(r, "/~") {
			return nil, usagef(s.cmd, "--lose %s is not a region: a zone is --zone REGION/ZONE, a link --link REGION~REGION", api.Quote(r))
		}
		if err := api.CheckRegion(r); err != nil {
			return nil, err
		}
	}
	for _, z := range f.zones {
		if _, err := api.ParseLostZone(z); err != nil {
			return nil, usagef(s.cmd, "--zone %s is not REGION/ZONE", api.Quote(z))
		}
	}
	for _, l := range f.links {
		if _, err := api.ParseLostLink(l); err != nil {
			return nil, usagef(s.cmd, "--link %s is not REGION~REGION", api.Quote(l))
		}
	}
	for _, name := range f.services {
		if err := checkService(name); err != nil {
			return nil, err
		}
	}
	if f.from != "" {
		if err := checkFrom(f.from); err != nil {
			return nil, err
		}
		q.Set("from", f.from)
	}
	for name, list := range map[string][]string{"lose": f.lose, "lose_zone": f.zones, "lose_link": f.links, "service": f.services} {
		for _, v := range list {
			q.Add(name, v)
		}
	}
	if f.limit != api.DefaultListLimit {
		q.Set("limit", strconv.Itoa(f.limit))
	}
	return q, nil
}

// whatIfAll asks until every service was looked at.
func (s *session) whatIfAll(ctx context.Context, q url.Values, limit int) (api.WhatIf, error) {
	var all api.WhatIf
	if _, err := s.client.get(ctx, api.PathWhatIf, q, &all); err != nil {
		return all, err
	}
	for all.Cursor != "" {
		q.Set("cursor", all.Cursor)
		var next api.WhatIf
		if _, err := s.client.get(ctx, api.PathWhatIf, q, &next); err != nil {
			return all, err
		}
		if next.Cursor != "" && next.Cursor <= all.Cursor {
			return all, &cliError{exit: ExitError, detail: fmt.Sprintf("after %s the node goes on at %s, which is no way forward", api.Quote(all.Cursor), api.Quote(next.Cursor)), remedy: "ask for fewer services: --service, or --ns"}
		}
		all.Add(next, limit)
	}
	return all, nil
}

// whatIfHints adds what was probably meant by a region or service that is not known.
func (s *session) whatIfHints(ctx context.Context, err error, f *whatIfFlags) error {
	ctx, cancel := context.WithTimeout(ctx, suggestBudget)
	defer cancel()
	var names, known []string
	switch api.CodeOf(err) {
	case api.CodeServiceNotFound:
		names, known = f.services, s.serviceNames(ctx)
	case api.CodeRegionNotFound:
		known = s.regionNames(ctx)
		for _, text := range slices.Concat(f.lose, f.zones, f.links, []string{f.from}) {
			names = append(names, strings.FieldsFunc(strings.SplitN(text, "/", 2)[0], func(r rune) bool { return r == '~' })...)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return withHints(err, name, known)
		}
	}
	return err
}

// whatIfVerdict is what the exit code says of an answer that was printed.
func whatIfVerdict(w api.WhatIf, failOn api.Effect) error {
	if failOn == "" || w.Effect.Rank() > failOn.Rank() {
		return nil
	}
	return &cliError{
		exit: ExitFalse, detail: fmt.Sprintf("--fail-on %s holds: %s", failOn, w.Summary()),
		remedy: "\"nearside explain SERVICE\" shows what serves it now; \"nearside policy\" and more instances change it",
	}
}

func whatIfView(w api.WhatIf) view {
	v := view{data: w, lines: []any{}, names: []string{}}
	columns := narrow("SERVICE", "FROM", "EFFECT", "MOVED", "RTT", "BEFORE", "AFTER")
	columns = append(columns, wideOnly("CARRIES", "LOAD", "REASON", "DETAIL")...)
	var rows [][]cell
	for _, row := range w.Services {
		v.lines = append(v.lines, row)
		if !slices.Contains(v.names, string(row.Service)) {
			v.names = append(v.names, string(row.Service))
		}
		carries, loads := capacities(row)
		rows = append(rows, []cell{
			text(serviceText(row)), text(row.From), effectCell(row.Effect), text(share(row.Moved)), addedRTT(row.AddedRTTMS),
			text(sharesOf(row, func(s api.WhatIfShare) (float64, bool) { return s.Before, false })),
			text(sharesOf(row, func(s api.WhatIfShare) (float64, bool) { return s.After, s.Over })),
			text(carries), text(loads), text(string(row.After.Reason)), text(row.Detail),
		})
	}
	v.text = func(t *sheet) {
		t.line("%s", w.Detail)
		t.line("callers: %s", strings.Join(w.Callers, ", "))
		if len(rows) > 0 {
			t.line("")
			t.table(columns, rows)
		}
		var regions [][]cell
		for _, r := range w.Regions {
			more := text("+" + amount(r.More))
			switch {
			case r.Lost:
				more = cell{text: "lost", paint: red}
			case r.More <= 0:
				continue
			case r.Over > 0:
				more.paint = yellow
			}
			regions = append(regions, []cell{text(string(r.Region)), more, number(r.Services), number(r.Over)})
		}
		if len(regions) > 0 {
			t.line("")
			t.table(narrow("REGION", "INSTANCES-WORTH", "SERVICES", "OVER"), regions)
		}
	}
	return v
}

func serviceText(row api.WhatIfService) string {
	return api.ServiceKey{Namespace: row.Namespace, Service: row.Service}.String()
}

func effectCell(e api.Effect) cell {
	c := text(string(e))
	switch e {
	case api.EffectDown, api.EffectWasDown:
		c.paint = red
	case api.EffectOver, api.EffectMoved:
		c.paint = yellow
	case api.EffectNone:
		c.paint = green
	}
	return c
}

// addedRTT is by how much the round trip changes; "-" where that is not known.
func addedRTT(ms *float64) cell {
	if ms == nil {
		return text("")
	}
	return text(fmt.Sprintf("%+gms", math.Round(*ms*10)/10))
}

// sharesOf lists the regions that get calls, such as "eu-west:70%,us-east:30%!"; "!" = over. It has no blank, so that
// columns can be counted.
func sharesOf(row api.WhatIfService, of func(api.WhatIfShare) (share float64, over bool)) string {
	var parts []string
	for _, s := range row.Regions {
		x, over := of(s)
		if x <= 0 {
			continue
		}
		part := string(s.Region) + ":" + share(x)
		if over {
			part += "!"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ",")
}

// capacities says what each region that gets calls would get of what it carries, and how much it would be used.
func capacities(row api.WhatIfService) (carries, loads string) {
	var a, b []string
	for _, s := range row.Regions {
		if s.After <= 0 {
			continue
		}
		if s.Unit != "" {
			a = append(a, fmt.Sprintf("%s:%s/%s", s.Region, amount(s.Gets), amount(s.Carries)))
		}
		if s.LoadAfter > 0 {
			b = append(b, fmt.Sprintf("%s:%s>%s", s.Region, percentText(s.LoadBefore), percentText(s.LoadAfter)))
		}
	}
	return strings.Join(a, ","), strings.Join(b, ",")
}

func amount(x float64) string { return strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64) }
