package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify [REGION]",
		Short: "Prove that what is held of a region is what it should be",
		Long: `Ask the region's federation (of all regions without REGION) what this node should hold of it, and compare:
by digest, and where digests differ row by row. Rows that change meanwhile prove nothing; it looks again for
some seconds until all is still.

Exit 0 when all rows are equal, 7 when rows differ (they are listed), 5 when the region cannot be asked,
8 when rows kept changing (those that did not are equal). Of several regions, 10 when some cannot be asked.`,
		Example: `  nearside federation verify eu-west
  nearside federation verify -o json`,
		Args:              argCount(0, 1, "the region"),
		ValidArgsFunction: a.completeRegions,
		RunE:              a.verb(func(ctx context.Context, s *session, args []string) error { return s.verify(ctx, args) }),
	}
}

// verify prints POST /v1/federation/verify of one region or of all.
func (s *session) verify(ctx context.Context, regions []string) error {
	one := len(regions) == 1
	if one {
		if err := api.CheckRegion(regions[0]); err != nil {
			return err
		}
	} else {
		info, err := s.federationInfo(ctx)
		if err != nil {
			return err
		}
		for _, l := range info.Links {
			regions = append(regions, string(l.Peer))
		}
		if len(regions) == 0 {
			s.note("%s is not linked to any region", orHere(info.Region))
			return nil
		}
	}
	results := []api.Verification{}
	lines := []any{}
	var names []string
	var silent error
	for _, r := range regions {
		var v api.Verification
		_, err := s.client.do(ctx, http.MethodPost, api.PathVerify, url.Values{"region": {r}}, &v)
		switch {
		case err != nil && one:
			return s.didYouMean(ctx, err, "", r)
		case err != nil && asCLI(err).exit != ExitUnreachable:
			return err
		case err != nil:
			silent = err
			s.note("%s: %s", r, asCLI(err).Error())
			continue
		}
		results = append(results, v)
		lines = append(lines, v)
		names = append(names, r)
	}
	out := view{data: results, lines: lines, names: names, text: func(t *sheet) { describeVerifications(t, results) }}
	if one {
		out.data, out.lines = results[0], nil
	}
	if err := s.out.print(out); err != nil {
		return err
	}
	return verdictOf(results, silent)
}

func describeVerifications(t *sheet, results []api.Verification) {
	var rows, differences [][]cell
	for _, v := range results {
		result := cell{text: v.Result, paint: green}
		switch v.Result {
		case api.VerifyDiffers:
			result.paint = red
		case api.VerifyMoving:
			result.paint = yellow
		}
		rows = append(rows, []cell{
			text(string(v.Region)), result, number(v.Rows), number(v.OriginRows), number(v.Moving), text(v.Digest), text(v.OriginDigest),
			text(fmt.Sprintf("%s/%d", v.Held.Epoch, v.Held.Revision)), text(fmt.Sprintf("%s/%d", v.Origin.Epoch, v.Origin.Revision)),
			number(v.Tries), text(shortDuration(milliseconds(v.TookMS))),
		})
		for _, d := range v.Differences {
			differences = append(differences, []cell{text(string(v.Region)), text(d.Row), {text: d.Kind, paint: red}, text(d.Held), text(d.Origin)})
		}
	}
	columns := narrow("REGION", "RESULT", "ROWS", "ORIGIN-ROWS", "MOVING", "DIGEST", "ORIGIN-DIGEST")
	t.table(append(columns, wideOnly("HELD", "ORIGIN", "TRIES", "TOOK")...), rows)
	if len(differences) > 0 {
		t.line("")
		t.table(narrow("REGION", "ROW", "KIND", "HELD", "ORIGIN"), differences)
	}
}

// verdictOf is the error that the exit code of verify stands for, nil when all are equal.
func verdictOf(results []api.Verification, silent error) error {
	for _, v := range results {
		if v.Result == api.VerifyDiffers {
			more := ""
			if v.More {
				more = " at least"
			}
			return &cliError{
				exit: ExitConflict, detail: fmt.Sprintf("what is held of %s is not what it should be:%s %d rows differ", v.Region, more, len(v.Differences)),
				remedy: fmt.Sprintf("\"nearside federation resync %s\" asks for all rows anew; please report it, with -o json of this", v.Region),
			}
		}
	}
	for _, v := range results {
		if v.Result == api.VerifyMoving {
			return &cliError{
				exit: ExitTimeout, detail: fmt.Sprintf("%s is still moving: %d rows changed while it was compared; no other row differs", v.Region, v.Moving),
				remedy: "try again; a region that never rests is compared row by row all the same",
			}
		}
	}
	switch {
	case silent != nil && len(results) == 0:
		return silent
	case silent != nil:
		return &cliError{exit: ExitPartial, detail: "some regions could not be asked", err: silent}
	}
	return nil
}

// resyncLook is how often a resync that is waited for is looked at.
const resyncLook = 200 * time.Millisecond

func (a *app) resyncCommand() *cobra.Command {
	wait := 30 * time.Second
	c := &cobra.Command{
		Use:   "resync REGION",
		Short: "Ask a region for all of its rows anew",
		Long: `Ask the region's federation for all of its rows anew. Nothing is dropped: what is held stays in use until
all rows came and their digest fits; then those that are gone are swept. Waits until that is done (exit 8
when it is not by then; it goes on all the same).`,
		Example: `  nearside federation resync eu-west
  nearside federation resync eu-west --wait 0   # do not wait`,
		Args:              argCount(1, 1, "the region"),
		ValidArgsFunction: a.completeRegions,
		RunE:              a.verb(func(ctx context.Context, s *session, args []string) error { return s.resync(ctx, args[0], wait) }),
	}
	c.Flags().DurationVar(&wait, "wait", wait, "how long to wait until it is done; 0 = do not wait")
	withoutEnv(c.Flags(), "wait")
	return c
}

func (s *session) resync(ctx context.Context, region string, wait time.Duration) error {
	if err := api.CheckRegion(region); err != nil {
		return err
	}
	if wait < 0 {
		return usagef(s.cmd, "--wait %s is negative", wait)
	}
	var info api.ResyncInfo
	if _, err := s.client.do(ctx, http.MethodPost, api.PathResync, url.Values{"region": {region}}, &info); err != nil {
		return s.didYouMean(ctx, err, "", region)
	}
	var err error
	if wait > 0 {
		info, err = s.awaitResync(ctx, info, wait)
	}
	if err != nil && asCLI(err).exit != ExitTimeout {
		return err
	}
	if perr := s.out.print(view{data: info, names: []string{region}, text: func(t *sheet) { t.line("%s", resyncProgress(info)) }}); perr != nil {
		return perr
	}
	return err
}

// awaitResync waits until it is done, and tells how far it is.
func (s *session) awaitResync(ctx context.Context, info api.ResyncInfo, wait time.Duration) (api.ResyncInfo, error) {
	asked := info.Asked
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	look := time.NewTicker(resyncLook)
	defer look.Stop()
	told := ""
	for info.State != api.ResyncDone {
		if p := resyncProgress(info); p != told && !s.out.machine() {
			told = p
			s.note("%s", p)
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return info, &cliError{
				exit: ExitTimeout, detail: fmt.Sprintf("%s after %s", resyncProgress(info), wait),
				remedy: "it goes on by itself; nearside federation status shows how far it is",
			}
		}
		f, err := s.federationInfo(ctx)
		if err != nil {
			if ctx.Err() == nil && !retryable(err) {
				return info, err
			}
			continue
		}
		for _, l := range f.Links {
			if l.Peer == info.Region && l.Resync != nil && !l.Resync.Asked.Before(asked) {
				info = *l.Resync
			}
		}
	}
	return info, nil
}

// resyncProgress says how far a resync is.
func resyncProgress(r api.ResyncInfo) string {
	switch r.State {
	case api.ResyncDone:
		return fmt.Sprintf("resync of %s: done, %d rows, %d of them not as before", r.Region, r.Rows, r.Changed)
	case api.ResyncReceiving:
		return fmt.Sprintf("resync of %s: %d rows came, %d were held when it began", r.Region, r.Received, r.Expected)
	}
	p := fmt.Sprintf("resync of %s: waiting for its federation", r.Region)
	if r.Cause != "" {
		p += ": " + clean(r.Cause)
	}
	return p
}
