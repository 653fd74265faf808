package cli

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) policyDiffCommand() *cobra.Command {
	var file string
	var to regionFlags
	c := &cobra.Command{
		Use:   "diff [SERVICE]",
		Short: "Compare policies between two regions, or a file with a region",
		Long: `Compare the policies of two regions: of the node asked with the one that --regions names, or of
the two that it names. Without SERVICE, all of the namespace. With -f, compare the policy in a file with
the region's. Exit 0 when they are equal, 4 when they differ.`,
		Example: `  nearside policy diff --regions us-east
  nearside policy diff orders --regions eu-west,us-east
  nearside policy diff orders -f orders.yaml`,
		Args:              argCount(0, 1, "the service"),
		ValidArgsFunction: a.completeServices,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			service := ""
			if len(args) > 0 {
				if service = args[0]; api.CheckPolicyService(service) != nil {
					return api.CheckPolicyService(service)
				}
			}
			return s.policyDiff(ctx, service, file, &to)
		}),
	}
	c.Flags().StringVarP(&file, "file", "f", "", "compare this policy, in YAML or JSON, with the region's; - is stdin")
	withoutEnv(c.Flags(), "file")
	to.add(c)
	return c
}

// sidePolicies is one side of a comparison.
type sidePolicies struct {
	name     string
	policies map[api.ServiceName]*api.Policy
}

// policyDifference is one policy that differs.
type policyDifference struct {
	Service api.ServiceName `json:"service"`
	// Changes are "field: of the first -> of the second".
	Changes []string `json:"changes"`
	// Only names the side that has a policy at all.
	Only string `json:"only,omitempty"`
}

func (s *session) policyDiff(ctx context.Context, service, file string, to *regionFlags) error {
	var sides []sidePolicies
	var places []place
	if to.several() {
		var err error
		if places, err = s.places(ctx, to); err != nil {
			return err
		}
	}
	if file != "" {
		switch {
		case service == "":
			return usagef(s.cmd, "SERVICE is missing: a file holds one policy")
		case len(places) > 1:
			return usagef(s.cmd, "a file is compared with one region")
		}
		w, err := s.readPolicy(file)
		if err != nil {
			return err
		}
		sides = append(sides, sidePolicies{file, map[api.ServiceName]*api.Policy{api.ServiceName(service): &w.Policy}})
	}
	if len(places) == 0 && file == "" || len(places) > 2 {
		return usagef(s.cmd, "say what to compare: --regions with one region or two, or -f")
	}
	if len(places)+len(sides) < 2 {
		home, err := s.home(ctx)
		if err != nil {
			return err
		}
		places = slices.Insert(places, 0, place{region: home, client: s.client})
	}
	if file != "" {
		places = places[len(places)-1:]
	}
	for _, p := range places {
		if p.err != nil {
			return p.err
		}
		list, err := s.policies(ctx, p.client, false)
		if err != nil {
			return fmt.Errorf("region %s: %w", p.region, err)
		}
		side := sidePolicies{string(p.region), map[api.ServiceName]*api.Policy{}}
		for _, r := range list.Policies {
			if service == "" || string(r.Service) == service {
				side.policies[r.Service] = &r.Policy
			}
		}
		sides = append(sides, side)
	}
	if file != "" {
		sides[0], sides[1] = sides[1], sides[0] // what there is, then what would be
	}
	return s.printDiff(sides[0], sides[1])
}

func (s *session) printDiff(a, b sidePolicies) error {
	services := map[api.ServiceName]struct{}{}
	for _, side := range []sidePolicies{a, b} {
		for name := range side.policies {
			services[name] = struct{}{}
		}
	}
	differ := []policyDifference{}
	for name := range services {
		was, is := a.policies[name], b.policies[name]
		d := policyDifference{Service: name, Changes: api.Differences(was, is)}
		switch {
		case is == nil:
			d.Only = a.name
		case was == nil:
			d.Only = b.name
		case len(d.Changes) == 0:
			continue
		}
		differ = append(differ, d)
	}
	slices.SortFunc(differ, func(x, y policyDifference) int { return strings.Compare(string(x.Service), string(y.Service)) })
	v := view{data: map[string]any{"from": a.name, "to": b.name, "differences": differ}, lines: []any{}}
	for _, d := range differ {
		v.lines = append(v.lines, d)
		v.names = append(v.names, string(d.Service))
	}
	v.text = func(t *sheet) {
		for _, d := range differ {
			only := ""
			if d.Only != "" {
				only = " (only " + d.Only + " has one)"
			}
			t.line("%s%s", d.Service, only)
			for _, c := range d.Changes {
				t.line("  %s", c)
			}
		}
	}
	if err := s.out.print(v); err != nil {
		return err
	}
	if len(differ) == 0 {
		if !s.out.machine() {
			s.note("%s and %s are equal", a.name, b.name)
		}
		return nil
	}
	return &cliError{exit: ExitFalse, detail: fmt.Sprintf("%d policies differ between %s and %s", len(differ), a.name, b.name), remedy: "\"policy set -f\" makes them equal"}
}

func (a *app) policyTestCommand() *cobra.Command {
	var f policyFlags
	var zone string
	c := &cobra.Command{
		Use:   "test SERVICE",
		Short: "Check a policy and show what the answers would become; nothing is stored",
		Long: `Check a policy, from a file or flags as for set, and show what the node would answer with it. For
the default (*), which services would be answered otherwise. Nothing is stored.`,
		Example: `  nearside policy test orders -f orders.yaml
  nearside policy test orders --local-only --zone a
  nearside policy test '*' --allowed eu-west`,
		Args:              argCount(1, 1, "the service"),
		ValidArgsFunction: a.completeServices,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			if err := api.CheckPolicyService(args[0]); err != nil {
				return err
			}
			edit, err := f.edit(s)
			if err != nil {
				return err
			}
			var cur *api.PolicyRecord
			if f.file == "" {
				if cur, err = s.ownPolicy(ctx, s.client, args[0]); err != nil {
					return err
				}
			}
			q := s.query()
			if zone != "" {
				q.Set("zone", zone)
			}
			var out api.PolicyTest
			if err := s.client.sendJSON(ctx, http.MethodPost, api.PathPolicy(api.ServiceName(args[0]))+"/test", q, edit(cur), &out); err != nil {
				return err
			}
			return s.printTest(out)
		}),
	}
	f.add(c)
	c.Flags().StringVar(&zone, "zone", "", "zone of the caller")
	withoutEnv(c.Flags(), "zone")
	return c
}

func (s *session) printTest(out api.PolicyTest) error {
	v := view{data: out, names: []string{}, lines: []any{}}
	for _, e := range out.Decisions {
		v.lines = append(v.lines, e)
		v.names = append(v.names, string(e.Service))
	}
	v.text = func(t *sheet) {
		t.line("valid; in force for callers of %s it would change:", out.Region)
		if len(out.Changes) == 0 {
			t.line("  no field")
		}
		for _, c := range out.Changes {
			t.line("  %s", c)
		}
		if len(out.Decisions) == 0 {
			t.line("no answer changes, of %d services looked at", out.Looked)
		}
		for _, e := range out.Decisions {
			if !e.Changed {
				t.line("%s: the answer stays: %s", e.Service, e.After.Detail)
				continue
			}
			t.line("%s:", e.Service)
			t.line("  before  %s", decisionLine(e.Before))
			t.line("  after   %s", decisionLine(e.After))
		}
	}
	if err := s.out.print(v); err != nil {
		return err
	}
	for _, warning := range out.Warnings {
		s.note("warning: %s", warning)
	}
	return nil
}

// decisionLine is a decision on one line: where the traffic goes, and why.
func decisionLine(d api.Decision) string {
	var parts []string
	for _, t := range d.Tiers {
		if t.Weight > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", t.Region, share(t.Weight)))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "nowhere")
	}
	return fmt.Sprintf("%s (%s: %s)", strings.Join(parts, ", "), d.Reason, d.Detail)
}
