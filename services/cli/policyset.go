package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/nearside/nearside/sdk/api"
)

// policyFlags are a policy on the command line: a file, or fields.
type policyFlags struct {
	file                                                string
	allowed, order, unset                               []string
	localOnly                                           bool
	orderBy, note                                       string
	minHealthy, overProvisioning, start, stop, keepWarm float64
	staleLimit, failbackRamp                            time.Duration
}

func (f *policyFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVarP(&f.file, "file", "f", "", "the whole policy, in YAML or JSON; - is stdin")
	fs.StringSliceVar(&f.allowed, "allowed", nil, "the only regions that may serve")
	fs.BoolVar(&f.localOnly, "local-only", false, "no region but the callers' own")
	fs.StringVar(&f.orderBy, "order-by", "", "how other regions rank: listed or rtt")
	fs.StringSliceVar(&f.order, "order", nil, "other regions to prefer, nearest first")
	fs.Float64Var(&f.minHealthy, "min-healthy", 0, "share of healthy instances, in percent, below which a region gives up all of its traffic")
	fs.Float64Var(&f.overProvisioning, "over-provisioning", 0, "how much more than its share a tier carries before it spills, 1 to 100")
	fs.Float64Var(&f.start, "spill-start", 0, "utilisation, in percent, at which a tier begins to spill")
	fs.Float64Var(&f.stop, "spill-stop", 0, "utilisation, in percent, at which it ceases to")
	fs.DurationVar(&f.staleLimit, "stale-limit", 0, "age from which a region is used only when nothing else is left")
	fs.DurationVar(&f.failbackRamp, "failback-ramp", 0, "time over which traffic returns to a nearer region; 0s = at once")
	fs.Float64Var(&f.keepWarm, "keep-warm", 0, "share of calls, in percent, to the next region while nothing is wrong")
	fs.StringSliceVar(&f.unset, "unset", nil, "fields to take from the default again, such as order,keep_warm")
	fs.StringVar(&f.note, "note", "", "why, for whoever reads the policy")
	withoutEnv(fs, "file", "allowed", "local-only", "order-by", "order", "min-healthy", "over-provisioning", "spill-start", "spill-stop",
		"stale-limit", "failback-ramp", "keep-warm", "unset", "note")
}

// fieldFlags are the flags that set one field.
var fieldFlags = []string{
	"allowed", "local-only", "order-by", "order", "min-healthy", "over-provisioning", "spill-start", "spill-stop", "stale-limit", "failback-ramp", "keep-warm", "unset",
}

// edit returns what makes a new policy of the one that there is (nil = none). A file is the whole
// policy; flags change the fields that they name, because a policy that lost its residency to a flag
// for something else would be worse than two calls.
func (f *policyFlags) edit(s *session) (func(cur *api.PolicyRecord) api.PolicyWrite, error) {
	changed := func(name string) bool { return s.cmd.Flags().Changed(name) }
	fields := slices.ContainsFunc(fieldFlags, changed)
	switch {
	case f.file != "" && fields:
		return nil, usagef(s.cmd, "--file is the whole policy: give it or flags for fields")
	case f.file == "" && !fields:
		return nil, usagef(s.cmd, "nothing to set: give --file, or flags for fields")
	case f.file != "":
		w, err := s.readPolicy(f.file)
		if err != nil {
			return nil, err
		}
		if changed("note") {
			w.Note = f.note
		}
		return func(*api.PolicyRecord) api.PolicyWrite { return w }, nil
	}
	for _, name := range f.unset {
		if _, ok := unsetters[strings.ReplaceAll(name, "-", "_")]; !ok {
			return nil, usagef(s.cmd, "--unset %s: there is no such field", api.Quote(name))
		}
	}
	return func(cur *api.PolicyRecord) api.PolicyWrite {
		var w api.PolicyWrite
		if cur != nil {
			w.Policy, w.Note = cur.Policy, cur.Note
		}
		for _, name := range f.unset {
			unsetters[strings.ReplaceAll(name, "-", "_")](&w.Policy)
		}
		f.apply(&w.Policy, changed)
		if changed("note") {
			w.Note = f.note
		}
		return w
	}, nil
}

func (f *policyFlags) apply(p *api.Policy, changed func(string) bool) {
	if changed("allowed") {
		p.Allowed = regionsOf(f.allowed)
	}
	if changed("order") {
		p.Order = regionsOf(f.order)
	}
	if changed("local-only") {
		p.LocalOnly = &f.localOnly
	}
	if changed("order-by") {
		p.OrderBy = api.OrderBy(f.orderBy)
	}
	if changed("stale-limit") {
		p.StaleLimit = api.Duration(f.staleLimit)
	}
	if changed("failback-ramp") {
		ramp := api.Duration(f.failbackRamp)
		p.FailbackRamp = &ramp
	}
	for _, n := range []struct {
		flag string
		from *float64
		to   **float64
	}{
		{"min-healthy", &f.minHealthy, &p.MinHealthy},
		{"over-provisioning", &f.overProvisioning, &p.OverProvisioning},
		{"spill-start", &f.start, &p.SpillStart},
		{"spill-stop", &f.stop, &p.SpillStop},
		{"keep-warm", &f.keepWarm, &p.KeepWarm},
	} {
		if changed(n.flag) {
			*n.to = n.from
		}
	}
}

var unsetters = map[string]func(*api.Policy){
	"allowed": func(p *api.Policy) { p.Allowed = nil }, "order": func(p *api.Policy) { p.Order = nil },
	"local_only": func(p *api.Policy) { p.LocalOnly = nil }, "order_by": func(p *api.Policy) { p.OrderBy = "" },
	"min_healthy": func(p *api.Policy) { p.MinHealthy = nil }, "over_provisioning": func(p *api.Policy) { p.OverProvisioning = nil },
	"spill_start": func(p *api.Policy) { p.SpillStart = nil }, "spill_stop": func(p *api.Policy) { p.SpillStop = nil },
	"stale_limit": func(p *api.Policy) { p.StaleLimit = 0 }, "failback_ramp": func(p *api.Policy) { p.FailbackRamp = nil },
	"keep_warm": func(p *api.Policy) { p.KeepWarm = nil },
}

func regionsOf(names []string) []api.Region {
	out := make([]api.Region, len(names))
	for i, n := range names {
		out[i] = api.Region(strings.TrimSpace(n))
	}
	return out
}

// readPolicy reads a policy from a file, in YAML or JSON: the fields of a policy and a note, or what
// "policy get -o yaml" prints.
func (s *session) readPolicy(file string) (api.PolicyWrite, error) {
	var w api.PolicyWrite
	in := s.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return w, usagef(s.cmd, "--file: %s", err)
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, api.MaxBodyBytes+1))
	switch {
	case err != nil:
		return w, usagef(s.cmd, "--file: %s", err)
	case len(raw) > api.MaxBodyBytes:
		return w, usagef(s.cmd, "--file: more than %d bytes", api.MaxBodyBytes)
	}
	return parsePolicy(s.cmd, file, raw)
}

// parsePolicy reads what a policy file says.
func parsePolicy(cmd *cobra.Command, file string, raw []byte) (w api.PolicyWrite, err error) {
	var doc map[string]any
	dec := yaml.NewDecoder(bytes.NewReader(raw)) // JSON is YAML
	if err := dec.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return w, usagef(cmd, "--file %s: %s", file, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return w, usagef(cmd, "--file %s has more than one document: keep one", file)
	}
	asJSON, err := json.Marshal(doc)
	if err != nil {
		return w, usagef(cmd, "--file %s: %s", file, err)
	}
	if _, record := doc["policy"]; record {
		var p api.PolicyRecord
		if err := api.UnmarshalStrict(asJSON, &p); err != nil {
			return w, fmt.Errorf("--file %s: %w", file, err)
		}
		return api.PolicyWrite{Policy: p.Policy, Note: p.Note}, nil
	}
	if doc == nil {
		return w, usagef(cmd, "--file %s is empty: write the fields of a policy; {} sets nothing", file)
	}
	if err := api.UnmarshalStrict(asJSON, &w); err != nil {
		return w, fmt.Errorf("--file %s: %w", file, err)
	}
	return w, nil
}

func (a *app) policySetCommand() *cobra.Command {
	var f policyFlags
	var to regionFlags
	var revision uint64
	c := &cobra.Command{
		Use:   "set SERVICE",
		Short: "Set the policy for a service, or the default (*), in one region or several",
		Long: `Set the policy for a service, or the namespace's default with the service "*". A file (-f) is
the whole policy. Flags change the fields that they name and leave the others; --unset takes
a field from the default again. It is in force at once, for callers of the region asked.

--regions or --all-regions set it in several regions, each for its own callers. Their addresses
are learned from the node asked, or given with --at. What went wrong in some of them is
reported per region, exit 10; setting it again is safe. The token is shown to the node asked
alone: --region-token-file names others, --share-token sends it to all.`,
		Example: `  nearside policy set orders --order us-east,ap-south --keep-warm 2
  nearside policy set orders -f orders.yaml --if-revision 42
  nearside policy set '*' --allowed eu-west,eu-north --regions eu-west,eu-north --note "data stays in the EU"`,
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
			var at *uint64
			if s.cmd.Flags().Changed("if-revision") {
				at = &revision
			}
			if to.several() {
				if at != nil {
					return usagef(s.cmd, "--if-revision is of one region: each has revisions of its own")
				}
				return s.everywhere(ctx, &to, args[0], func(cl *client) (string, error) {
					w, err := s.setPolicy(ctx, cl, args[0], f.file == "", edit, nil)
					if err != nil {
						return "", err
					}
					return written(w), nil
				})
			}
			w, err := s.setPolicy(ctx, s.client, args[0], f.file == "", edit, at)
			if err != nil {
				return err
			}
			return s.printWritten(w)
		}),
	}
	f.add(c)
	c.Flags().Uint64Var(&revision, "if-revision", 0, "only if the policy is at this revision; 0 = only if there is none")
	withoutEnv(c.Flags(), "if-revision")
	to.add(c)
	return c
}

// setPolicy writes what edit makes of the policy that there is. Where that was read, the write is only
// over what was read, and one that somebody else changed meanwhile is read again.
func (s *session) setPolicy(ctx context.Context, cl *client, service string, onTop bool, edit func(*api.PolicyRecord) api.PolicyWrite, at *uint64) (api.PolicyWritten, error) {
	if !onTop {
		return s.putPolicy(ctx, cl, service, edit(nil), at)
	}
	const tries = 3
	for n := 1; ; n++ {
		cur, err := s.ownPolicy(ctx, cl, service)
		if err != nil {
			return api.PolicyWritten{}, err
		}
		seen := uint64(0)
		if cur != nil {
			seen = cur.Revision
		}
		guard := &seen
		if at != nil {
			guard = at
		}
		out, err := s.putPolicy(ctx, cl, service, edit(cur), guard)
		if at != nil || n == tries || api.CodeOf(err) != api.CodeConflict {
			return out, err
		}
	}
}

func written(w api.PolicyWritten) string {
	return strings.Join(append([]string{fmt.Sprintf("version %d, revision %d", w.Version, w.Revision)}, w.Warnings...), "; ")
}

func (s *session) printWritten(w api.PolicyWritten) error {
	if err := s.out.print(view{data: w, names: []string{string(w.Service)}, text: func(t *sheet) { s.describePolicy(t, w.PolicyRecord) }}); err != nil {
		return err
	}
	for _, warning := range w.Warnings {
		s.note("warning: %s", warning)
	}
	return nil
}
