package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

// regionFlags are those of verbs that work in several regions at once.
type regionFlags struct {
	names      []string
	all        bool
	at         []string // REGION=URL
	tokenFiles []string // REGION=FILE
	shareToken bool
}

func (f *regionFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringSliceVar(&f.names, "regions", nil, "in these regions")
	fs.BoolVar(&f.all, "all-regions", false, "in every region that the node asked knows")
	fs.StringArrayVar(&f.at, "at", nil, "REGION=URL of a region's node, instead of what the node asked says (repeatable)")
	fs.StringArrayVar(&f.tokenFiles, "region-token-file", nil, "REGION=FILE with that region's token (repeatable)")
	fs.BoolVar(&f.shareToken, "share-token", false, "show the token to every region: they have the same, and trust each other with it")
	withoutEnv(fs, "regions", "all-regions", "at", "region-token-file", "share-token")
}

func (f *regionFlags) several() bool { return f.all || len(f.names) > 0 }

// place is a region to work in; err says why that is not possible.
type place struct {
	region api.Region
	client *client
	err    error
}

// places returns the regions that the flags name, each with a client of its own.
func (s *session) places(ctx context.Context, f *regionFlags) ([]place, error) {
	if f.all && len(f.names) > 0 {
		return nil, usagef(s.cmd, "--regions and --all-regions both say where: give one")
	}
	at, err := pairsOf(s.cmd, "--at", f.at)
	if err != nil {
		return nil, err
	}
	tokens, err := pairsOf(s.cmd, "--region-token-file", f.tokenFiles)
	if err != nil {
		return nil, err
	}
	names := regionsOf(f.names)
	var list api.RegionList
	away := false // the node asked is, so nobody says which region its token is of
	if _, err := s.client.get(ctx, api.PathRegions, nil, &list); err != nil {
		// Where all addresses are given the node asked has nothing to add, and may be the one that is away.
		given := !f.all && !slices.ContainsFunc(names, func(r api.Region) bool { return at[r] == "" })
		if !given || !retryable(err) || ctx.Err() != nil {
			return nil, err
		}
		list = api.RegionList{}
		away = true
	}
	if f.all {
		for _, r := range list.Regions {
			names = append(names, r.Region)
		}
	}
	var out []place
	for i, name := range names {
		if err := api.CheckRegion(string(name)); err != nil {
			return nil, err
		}
		if slices.Contains(names[:i], name) {
			return nil, usagef(s.cmd, "--regions names %s twice", name)
		}
		p := place{region: name}
		p.client, p.err = s.clientOf(name, list, at[name], tokens[name], f.shareToken)
		if p.err == nil && away && s.client.token != "" && p.client.token == "" {
			p.err = &cliError{
				exit: ExitUnreachable, detail: "which region the token is of is not known while the node asked does not answer",
				remedy: fmt.Sprintf("give the region's own: --region-token-file %s=FILE, or --share-token if all have the same", name),
			}
		}
		out = append(out, p)
	}
	return out, nil
}

// clientOf returns a client for a region's nodes. The token is of the region asked: whoever gets it may
// do everything there, so no other region does unless that is said.
func (s *session) clientOf(name api.Region, list api.RegionList, at, tokenFile string, share bool) (*client, error) {
	cl := &client{http: s.client.http, timeout: s.client.timeout}
	known := slices.IndexFunc(list.Regions, func(r api.RegionInfo) bool { return r.Region == name })
	switch {
	case at != "":
		base, err := baseURL(at)
		if err != nil {
			return nil, err
		}
		cl.addrs = []string{base}
	case name == list.Home:
		cl.addrs = s.client.addrs
	case known < 0:
		return nil, &api.Error{Code: api.CodeRegionNotFound, Detail: fmt.Sprintf("region %s is not known to %s", name, list.Home), Remedy: fmt.Sprintf("check its name, or give its address: --at %s=URL", name)}
	case len(list.Regions[known].Addresses) == 0:
		return nil, &cliError{exit: ExitUnreachable, detail: fmt.Sprintf("no address of region %s is known to %s", name, list.Home), remedy: fmt.Sprintf("give it: --at %s=URL", name)}
	default:
		for _, a := range list.Regions[known].Addresses {
			if base, err := baseURL(a); err == nil {
				cl.addrs = append(cl.addrs, base)
			}
		}
	}
	switch {
	case tokenFile != "":
		b, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, &cliError{exit: ExitUsage, detail: "--region-token-file: " + err.Error(), remedy: "give a readable file that holds the token alone"}
		}
		if cl.token, err = checkToken("--region-token-file", string(b)); err != nil {
			return nil, err
		}
	case name == list.Home || share:
		cl.token = s.client.token
	}
	return cl, nil
}

// pairsOf reads REGION=VALUE flags.
func pairsOf(c *cobra.Command, flag string, list []string) (map[api.Region]string, error) {
	out := map[api.Region]string{}
	for _, p := range list {
		region, value, ok := strings.Cut(p, "=")
		if !ok || !api.ValidLabel(region) || value == "" {
			return nil, usagef(c, "%s %s is not REGION=…", flag, api.Quote(p))
		}
		out[api.Region(region)] = value
	}
	return out, nil
}

// outcome is what became of a change in one region.
type outcome struct {
	Region api.Region `json:"region"`
	OK     bool       `json:"ok"`
	Detail string     `json:"detail"`
	Code   api.Code   `json:"code,omitempty"`
	Remedy string     `json:"remedy,omitempty"`
}

// everywhere does work in several regions at once, and reports each. With a failure, or only such,
// the exit code is ExitPartial: the cause is a region's own, and told with it.
func (s *session) everywhere(ctx context.Context, f *regionFlags, what string, work func(*client) (string, error)) error {
	places, err := s.places(ctx, f)
	if err != nil {
		return err
	}
	out := make([]outcome, len(places))
	var wg sync.WaitGroup
	for i, p := range places {
		wg.Go(func() {
			out[i] = outcome{Region: p.region}
			err := p.err
			if err == nil {
				out[i].Detail, err = work(p.client)
			}
			if err != nil {
				e := asCLI(err)
				out[i].Detail, out[i].Code, out[i].Remedy = e.Error(), e.code, e.remedy
				if e.code == api.CodeUnauthorized && p.client.token == "" {
					out[i].Remedy = fmt.Sprintf("give that region's token: --region-token-file %s=FILE, or --share-token", p.region)
				}
				return
			}
			out[i].OK = true
		})
	}
	wg.Wait()
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	v := view{data: map[string]any{"results": out}, lines: []any{}}
	var rows [][]cell
	var failed []string
	for _, o := range out {
		v.lines = append(v.lines, o)
		v.names = append(v.names, string(o.Region))
		state := cell{text: "ok", paint: green}
		if !o.OK {
			state = cell{text: "failed", paint: red}
			failed = append(failed, string(o.Region))
		}
		rows = append(rows, []cell{text(string(o.Region)), state, text(o.Detail), text(o.Remedy)})
	}
	v.text = func(t *sheet) { t.table(narrow("REGION", "RESULT", "DETAIL", "REMEDY"), rows) }
	if err := s.out.print(v); err != nil {
		return err
	}
	if len(failed) > 0 {
		return &cliError{
			exit: ExitPartial, detail: fmt.Sprintf("%s: failed in %d of %d regions: %s", what, len(failed), len(out), strings.Join(failed, ", ")),
			remedy: remedyTogether(len(failed), len(out)),
		}
	}
	return nil
}

func remedyTogether(failed, all int) string {
	if failed == all {
		return "it is safe to repeat"
	}
	return "it is safe to repeat; the others have it already"
}
