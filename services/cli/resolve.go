package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) resolveCommand() *cobra.Command {
	var (
		zone, from string
		limit      int
	)
	c := &cobra.Command{
		Use:   "resolve SERVICE",
		Short: "Show the instances that a call goes to, best first",
		Long: `Show the instances that a call to SERVICE goes to, best first, and why.

Exit 4 when no instance is healthy: either there is none, or only unhealthy ones are
offered for want of better. Exit 3 when no region knows the service.`,
		Example: `  nearside resolve orders
  nearside resolve orders --zone a --limit 1 -o address
  nearside resolve payments --from ap-south/b
  nearside resolve orders --max-stale 30s -o json`,
		Args:              argCount(1, 1, "the service"),
		ValidArgsFunction: a.completeServices,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			if from != "" && zone != "" {
				return usagef(s.cmd, "--zone and --from both say where the caller is: give one (--from REGION/ZONE)")
			}
			if limit < 0 {
				return usagef(s.cmd, "--limit %d is negative", limit)
			}
			return s.resolve(ctx, args[0], zone, from, limit)
		}),
	}
	fs := c.Flags()
	fs.StringVar(&zone, "zone", "", "zone of the caller, within the node's region")
	fs.StringVar(&from, "from", "", "answer as for a caller in REGION or REGION/ZONE")
	fs.IntVar(&limit, "limit", 0, "at most this many endpoints; 0 = all")
	return c
}

// resolve prints GET /v1/resolve/{service}; from another place it is the answer within
// GET /v1/explain/{service}, which alone takes one.
func (s *session) resolve(ctx context.Context, service, zone, from string, limit int) error {
	if err := checkService(service); err != nil {
		return err
	}
	res, err := s.resolution(ctx, api.ServiceName(service), zone, from, limit)
	if err != nil {
		region, _, _ := strings.Cut(from, "/")
		return s.didYouMean(ctx, err, service, region)
	}
	if err := s.out.print(resolutionView(res)); err != nil {
		return err
	}
	if !s.out.machine() && len(res.Endpoints) > 0 {
		s.note("reason: %s: %s", res.Decision.Reason, res.Decision.Detail)
	}
	return s.verdict(ctx, res)
}

func (s *session) resolution(ctx context.Context, service api.ServiceName, zone, from string, limit int) (api.Resolution, error) {
	q := s.query()
	if from != "" {
		q.Set("from", from)
		var e api.Explanation
		if err := checkFrom(from); err != nil {
			return e.Resolution, err
		}
		_, err := s.client.get(ctx, api.PathExplain(service), q, &e)
		if limit > 0 && len(e.Endpoints) > limit {
			e.Endpoints = e.Endpoints[:limit]
		}
		return e.Resolution, err
	}
	if zone != "" {
		if err := api.CheckZone(zone); err != nil {
			return api.Resolution{}, err
		}
		q.Set("zone", zone)
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	var res api.Resolution
	_, err := s.client.get(ctx, api.PathResolve(service), q, &res)
	return res, err
}

// checkFrom checks a place of the form region or region/zone.
func checkFrom(from string) error {
	region, zone, _ := strings.Cut(from, "/")
	if err := api.CheckRegion(region); err != nil {
		return err
	}
	return api.CheckZone(zone)
}

func resolutionView(res api.Resolution) view {
	v := view{data: res, lines: []any{}, addresses: []string{}}
	views := map[api.Region]api.Origin{}
	for _, o := range res.Views {
		views[o.Region] = o
	}
	tiers := map[int]api.Tier{}
	for _, t := range res.Decision.Tiers {
		tiers[t.Tier] = t
	}
	var rows [][]cell
	for _, e := range res.Endpoints {
		v.lines = append(v.lines, e)
		v.names = append(v.names, string(e.ID))
		address := hostPort(e.Address, e.Port)
		v.addresses = append(v.addresses, address)
		origin, known := views[e.Region]
		old, state, rtt := text(""), text(""), text("")
		if known {
			old, state, rtt = age(ageOf(origin)), ageState(origin.State), roundTrip(origin.RTTMS)
		}
		tier := tiers[e.Tier]
		rows = append(rows, []cell{
			text(string(e.ID)), text(address), text(string(e.Region)), text(string(e.Zone)), number(e.Tier),
			text(string(tier.Kind)), text(share(tier.Weight)), number(e.Weight), status(e.Status, e.Overdue),
			old, state, rtt, text(e.Version), text(strings.Join(e.Tags, ",")),
		})
	}
	v.text = func(t *sheet) {
		columns := narrow("INSTANCE", "ADDRESS", "REGION", "ZONE", "TIER")
		columns = append(columns, wideOnly("KIND", "SHARE")...)
		columns = append(columns, narrow("WEIGHT", "STATUS", "AGE")...)
		columns = append(columns, wideOnly("STATE", "RTT", "VERSION", "TAGS")...)
		t.table(labelled(res.Namespace, columns, rows))
	}
	return v
}

// verdict is what the exit code says of an answer that was printed.
func (s *session) verdict(ctx context.Context, res api.Resolution) error {
	name := api.ServiceKey{Namespace: res.Namespace, Service: res.Service}
	switch {
	case res.Decision.Reason == api.ReasonServiceNotFound && len(res.Endpoints) == 0:
		return s.didYouMean(ctx, &api.Error{
			Code: api.CodeServiceNotFound, Detail: fmt.Sprintf("service %s is not known in any region", name),
			Remedy: "\"nearside services\" lists those that are",
		}, string(res.Service), "")
	case len(res.Endpoints) == 0:
		return &cliError{
			exit: ExitFalse, detail: fmt.Sprintf("no instance of %s: %s", name, reasonText(res.Decision)),
			remedy: fmt.Sprintf("\"nearside explain %s%s\" shows who was left out, and why", s.nsFlag(), res.Service),
		}
	case res.Decision.Panic:
		return &cliError{
			exit: ExitFalse, detail: fmt.Sprintf("no healthy instance of %s; the unhealthy ones are offered for want of better", name),
			remedy: fmt.Sprintf("\"nearside explain %s%s\" shows who was left out, and why", s.nsFlag(), res.Service),
		}
	}
	serving := map[api.Region]bool{}
	for _, t := range res.Decision.Tiers {
		serving[t.Region] = serving[t.Region] || t.Weight > 0
	}
	old, region := oldest(res.Views, func(r api.Region) bool { return serving[r] })
	return s.checkAge(old, "what is known of "+string(region))
}

func reasonText(d api.Decision) string {
	if d.Detail == "" {
		return string(d.Reason)
	}
	return d.Detail
}

func roundTrip(ms int64) cell {
	if ms <= 0 {
		return text("")
	}
	return text(strconv.FormatInt(ms, 10) + "ms")
}
