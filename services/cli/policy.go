package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) policyCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "policy",
		Short: "Read, set and compare the rules for where callers of a region are sent",
		Long: `Read, set and compare policies: the rules of a region for its own callers of a service. The
service "*" is the namespace's default, which holds for whatever a policy does not set.

allowed and local_only (residency) hold under all circumstances; everything else yields
before nobody would be left to call.`,
		Example: `  nearside policy get orders --effective
  nearside policy set orders --allowed eu-west,eu-north --note "data stays in the EU"
  nearside policy test orders -f orders.yaml
  nearside policy set orders -f orders.yaml --all-regions`,
	}
	group.AddCommand(a.policyGetCommand(), a.policySetCommand(), a.policyDeleteCommand(), a.policyListCommand(), a.policyDiffCommand(), a.policyTestCommand())
	return group
}

func (a *app) policyGetCommand() *cobra.Command {
	var effective bool
	c := &cobra.Command{
		Use:   "get SERVICE",
		Short: "Print the policy for a service, or the default (*)",
		Long: `Print the policy for a service, or the namespace's default with the service "*". --effective
merges it with the default: what is in force. Exit 3 when there is none of its own.

-o yaml prints what "policy set -f" takes.`,
		Example: `  nearside policy get orders
  nearside policy get orders --effective -o json
  nearside policy get '*' -o yaml > default.yaml`,
		Args:              argCount(1, 1, "the service"),
		ValidArgsFunction: a.completeServices,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			if err := api.CheckPolicyService(args[0]); err != nil {
				return err
			}
			q := s.query()
			if effective {
				q.Set("effective", "true")
			}
			var p api.PolicyRecord
			got, err := s.client.get(ctx, api.PathPolicy(api.ServiceName(args[0])), q, &p)
			if err != nil {
				return err
			}
			if err := s.out.print(view{data: p, names: []string{string(p.Service)}, text: func(t *sheet) { s.describePolicy(t, p) }}); err != nil {
				return err
			}
			return s.checkAge(got.age, "what the node knows of its policies")
		}),
	}
	c.Flags().BoolVar(&effective, "effective", false, "merged with the default: what is in force")
	withoutEnv(c.Flags(), "effective")
	return c
}

// describePolicy writes a policy field by field.
func (s *session) describePolicy(t *sheet, p api.PolicyRecord) {
	pairs := [][2]string{{"service", string(p.Service)}}
	if p.Namespace != api.DefaultNamespace {
		pairs = append(pairs, [2]string{"namespace", string(p.Namespace)})
	}
	for _, f := range p.Policy.Fields() {
		if f.Value != "" {
			pairs = append(pairs, [2]string{f.Name, f.Value})
		}
	}
	if p.Revision == 0 {
		pairs = append(pairs, [2]string{"version", "none of its own"})
	} else {
		pairs = append(pairs, [2]string{"version", fmt.Sprintf("%d, at revision %d, %s ago by %s", p.Version, p.Revision, shortDuration(s.now().Sub(p.Time)), orUnknown(p.Actor))})
	}
	if p.Note != "" {
		pairs = append(pairs, [2]string{"note", p.Note})
	}
	t.pairs(pairs)
}

func orUnknown(s string) string {
	if s == "" {
		return "somebody"
	}
	return s
}

func (a *app) policyListCommand() *cobra.Command {
	var effective bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the policies of a namespace",
		Long:  `List the policies of a namespace, the default ("*") first. An empty list is no error.`,
		Example: `  nearside policy list
  nearside policy list --effective -o json`,
		Args: argCount(0, 0, ""),
		RunE: a.verb(func(ctx context.Context, s *session, _ []string) error {
			list, err := s.policies(ctx, s.client, effective)
			if err != nil {
				return err
			}
			v := view{data: list, lines: []any{}}
			var rows [][]cell
			for _, p := range list.Policies {
				v.lines = append(v.lines, p)
				v.names = append(v.names, string(p.Service))
				rows = append(rows, []cell{text(string(p.Service)), text(policyLine(&p.Policy)), text(strconv.FormatUint(p.Version, 10)), text(strconv.FormatUint(p.Revision, 10)), text(p.Note), text(p.Actor)})
			}
			v.text = func(t *sheet) {
				t.table(s.labelled(append(narrow("SERVICE", "POLICY", "VERSION"), wideOnly("REVISION", "NOTE", "ACTOR")...), rows))
			}
			return s.out.print(v)
		}),
	}
	c.Flags().BoolVar(&effective, "effective", false, "merged with the default: what is in force")
	withoutEnv(c.Flags(), "effective")
	return c
}

// policies reads every policy of the session's namespace from a node.
func (s *session) policies(ctx context.Context, cl *client, effective bool) (api.PolicyList, error) {
	q := s.query()
	if effective {
		q.Set("effective", "true")
	}
	var all api.PolicyList
	for {
		var page api.PolicyList
		if _, err := cl.get(ctx, api.PathPolicies, q, &page); err != nil {
			return all, err
		}
		page.Policies = append(all.Policies, page.Policies...)
		all = page
		if all.Cursor == "" {
			return all, nil
		}
		q.Set("cursor", all.Cursor)
		all.Cursor = ""
	}
}

// policyLine is a policy on one line.
func policyLine(p *api.Policy) string {
	var parts []string
	for _, f := range p.Fields() {
		if f.Value != "" {
			parts = append(parts, f.Name+"="+strings.ReplaceAll(f.Value, " ", ","))
		}
	}
	if len(parts) == 0 {
		return "nothing is set"
	}
	return strings.Join(parts, " ")
}

func (a *app) policyDeleteCommand() *cobra.Command {
	var revision uint64
	var to regionFlags
	c := &cobra.Command{
		Use:   "delete SERVICE",
		Short: "Delete the policy for a service, which then goes by the default",
		Long: `Delete the policy for a service, which then goes by the namespace's default. Exit 3 when there
is none, 7 when --if-revision does not hold, 10 when it went wrong in some of several regions.`,
		Example: `  nearside policy delete orders
  nearside policy delete orders --all-regions`,
		Args:              argCount(1, 1, "the service"),
		ValidArgsFunction: a.completeServices,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			if err := api.CheckPolicyService(args[0]); err != nil {
				return err
			}
			path := api.PathPolicy(api.ServiceName(args[0]))
			q := s.query()
			if s.cmd.Flags().Changed("if-revision") {
				q.Set("if_revision", strconv.FormatUint(revision, 10))
			}
			if to.several() {
				return s.everywhere(ctx, &to, args[0], func(cl *client) (string, error) {
					_, err := cl.do(ctx, http.MethodDelete, path, s.query(), nil)
					if api.CodeOf(err) == api.CodePolicyNotFound {
						return "had none", nil
					}
					return "deleted", err
				})
			}
			if _, err := s.client.do(ctx, http.MethodDelete, path, q, nil); err != nil {
				return err
			}
			s.note("deleted the policy for %s", args[0])
			return nil
		}),
	}
	c.Flags().Uint64Var(&revision, "if-revision", 0, "only if the policy is at this revision")
	withoutEnv(c.Flags(), "if-revision")
	to.add(c)
	return c
}

// putPolicy sends a policy to a node.
func (s *session) putPolicy(ctx context.Context, cl *client, service string, w api.PolicyWrite, ifRevision *uint64) (api.PolicyWritten, error) {
	var out api.PolicyWritten
	q := s.query()
	if ifRevision != nil {
		q.Set("if_revision", strconv.FormatUint(*ifRevision, 10))
	}
	return out, cl.sendJSON(ctx, http.MethodPut, api.PathPolicy(api.ServiceName(service)), q, w, &out)
}

// ownPolicy reads the policy for a service from a node; nil = there is none of its own.
func (s *session) ownPolicy(ctx context.Context, cl *client, service string) (*api.PolicyRecord, error) {
	var p api.PolicyRecord
	q := url.Values{}
	for k, v := range s.query() {
		q[k] = v
	}
	_, err := cl.get(ctx, api.PathPolicy(api.ServiceName(service)), q, &p)
	switch {
	case api.CodeOf(err) == api.CodePolicyNotFound:
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &p, nil
}
