package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) explainCommand() *cobra.Command {
	var from string
	c := &cobra.Command{
		Use:   "explain SERVICE",
		Short: "Say why a call to a service goes where it goes",
		Long: `Say why a call to SERVICE goes where it goes: who was known, who left the funnel and
why, the tiers with their share of traffic, how old the knowledge of each region is, and
what would make the answer another one. The very function that routes made this record.

Exit codes are those of resolve. -o wide names everyone who was left out.`,
		Example: `  nearside explain payments
  nearside explain payments --from eu-west/b -o wide
  nearside explain payments -o json`,
		Args:              argCount(1, 1, "the service"),
		ValidArgsFunction: a.completeServices,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			return s.explain(ctx, args[0], from)
		}),
	}
	c.Flags().StringVar(&from, "from", "", "explain it for a caller in REGION or REGION/ZONE")
	return c
}

// explain prints GET /v1/explain/{service}.
func (s *session) explain(ctx context.Context, service, from string) error {
	if err := checkService(service); err != nil {
		return err
	}
	q := s.query()
	if from != "" {
		if err := checkFrom(from); err != nil {
			return err
		}
		q.Set("from", from)
	}
	var e api.Explanation
	if _, err := s.client.get(ctx, api.PathExplain(api.ServiceName(service)), q, &e); err != nil {
		region, _, _ := strings.Cut(from, "/")
		return s.didYouMean(ctx, err, service, region)
	}
	v := view{data: e, addresses: []string{}, text: func(t *sheet) { explanation(t, e) }}
	for _, p := range e.Endpoints {
		v.names = append(v.names, string(p.ID))
		v.addresses = append(v.addresses, hostPort(p.Address, p.Port))
	}
	if err := s.out.print(v); err != nil {
		return err
	}
	return s.verdict(ctx, e.Resolution)
}

func explanation(t *sheet, e api.Explanation) {
	key := api.ServiceKey{Namespace: e.Namespace, Service: e.Service}
	t.line("%s from %s", key, orHere(api.Region(e.From)))
	t.line("%s: %s", e.Decision.Reason, e.Decision.Detail)
	if len(e.Trace.Steps) > 0 {
		t.line("")
		rows := make([][]cell, 0, len(e.Trace.Steps))
		for _, step := range e.Trace.Steps {
			rows = append(rows, []cell{text(step.Step), number(step.In), number(step.Out), text(remark(step, t.wide))})
		}
		t.table(narrow("STEP", "IN", "OUT", "LEFT OUT"), rows)
	}
	if len(e.Decision.Tiers) > 0 {
		t.line("")
		rows := make([][]cell, 0, len(e.Decision.Tiers))
		for _, tier := range e.Decision.Tiers {
			rows = append(rows, []cell{
				number(tier.Tier), text(string(tier.Kind)), text(string(tier.Region)), text(string(tier.Zone)),
				text(share(tier.Weight)), number(tier.Usable), number(tier.Total),
			})
		}
		t.table(narrow("TIER", "KIND", "REGION", "ZONE", "SHARE", "USABLE", "TOTAL"), rows)
	}
	if len(e.Views) > 0 {
		t.line("")
		rows := make([][]cell, 0, len(e.Views))
		for _, v := range e.Views {
			rows = append(rows, []cell{
				text(string(v.Region)), age(ageOf(v)), ageState(v.State), roundTrip(v.RTTMS),
				text(v.Epoch.String()), text(strconv.FormatUint(v.Revision, 10)), text(v.Source),
			})
		}
		t.table(narrow("VIEW", "AGE", "STATE", "RTT", "EPOCH", "REVISION", "SOURCE"), rows)
	}
	if len(e.Trace.WouldChange) > 0 {
		t.line("")
		t.line("would change if:")
		for _, w := range e.Trace.WouldChange {
			t.line("  - %s", w)
		}
	}
}

// remark says who left the funnel at a step, and what the step went by.
func remark(step api.TraceStep, byName bool) string {
	gone := dropped(step, byName)
	switch {
	case step.Note == "":
		return gone
	case gone == "":
		return "(" + step.Note + ")"
	}
	return gone + " (" + step.Note + ")"
}

// dropped says who left the funnel at a step: counted by cause, or by name when wide.
func dropped(step api.TraceStep, byName bool) string {
	var (
		parts  []string
		counts = map[string]int{}
		causes []string
	)
	for _, d := range step.Dropped {
		if byName {
			parts = append(parts, fmt.Sprintf("%s@%s (%s)", d.ID, d.Region, d.Why))
			continue
		}
		if counts[d.Why] == 0 {
			causes = append(causes, d.Why)
		}
		counts[d.Why]++
	}
	for _, why := range causes {
		parts = append(parts, fmt.Sprintf("%d %s", counts[why], why))
	}
	if more := step.In - step.Out - len(step.Dropped); more > 0 && len(step.Dropped) > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, ", ")
}
