package cli

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) lagCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "lag",
		Short: "Show how far behind each region this node is",
		Long: `Show, per region that this node reads from, how far behind it is:

  AGE       upper bound of the time since the region confirmed that this is its newest state
  REV-GAP   revisions that it announced and that are not applied yet, and
  WAITS     how long the oldest of those has waited
  CANARY    measured time from a moment there to everything older being visible here; the last one,
            and P50 and P99 of the last minute. An upper bound without comparing clocks, at most
            one round trip too high.
  BACK      the same in the other direction, measured by this node: from a moment here to the
            region having it, and its word of that back here
  VIA       the region that its rows are taken from while its own federation does not answer; there is no
            canary then`,
		Example: `  nearside federation lag
  nearside federation lag --max-stale 5s   # exit 9 when something is older`,
		Args: argCount(0, 0, ""),
		RunE: a.verb(func(ctx context.Context, s *session, _ []string) error { return s.lag(ctx) }),
	}
}

// lag prints GET /v1/federation as how late everything is.
func (s *session) lag(ctx context.Context) error {
	info, err := s.federationInfo(ctx)
	if err != nil {
		return err
	}
	back := map[api.Region]int64{} // of the node of the region that is heard best
	for _, r := range info.Readers {
		if was := back[r.Region]; r.CanaryMS > 0 && (was == 0 || r.CanaryMS < was) {
			back[r.Region] = r.CanaryMS
		}
	}
	v := view{data: info.Links, lines: []any{}}
	if info.Links == nil {
		v.data = []api.LinkInfo{}
	}
	var (
		rows  [][]cell
		views []api.Origin
	)
	for _, l := range info.Links {
		v.lines = append(v.lines, l)
		v.names = append(v.names, string(l.Peer))
		views = append(views, l.Replica)
		var last, p50, p99 cell
		if c := l.Canary; c != nil {
			last, p50, p99 = roundTrip(c.LastMS), roundTrip(c.P50MS), roundTrip(c.P99MS)
			if silent := milliseconds(c.AgeMS); silent > 5*time.Second {
				last = cell{text: "silent/" + shortDuration(silent), paint: red}
			}
		}
		waits := text("")
		if l.BehindMS > 0 {
			waits = cell{text: shortDuration(milliseconds(l.BehindMS)), paint: yellow}
		}
		rows = append(rows, []cell{
			text(string(l.Peer)), ageState(l.Replica.State), linkState(l), age(ageOf(l.Replica)), text(strconv.FormatUint(l.HeadLag, 10)), waits,
			last, p50, p99, roundTrip(back[l.Peer]), roundTrip(l.RTTMS), text(string(l.Via)),
		})
	}
	v.text = func(t *sheet) {
		t.table(narrow("ORIGIN", "STATE", "LINK", "AGE", "REV-GAP", "WAITS", "CANARY", "P50", "P99", "BACK", "RTT", "VIA"), rows)
	}
	if err := s.out.print(v); err != nil {
		return err
	}
	if !s.out.machine() && len(info.Links) == 0 {
		s.note("%s is not linked to any region", orHere(info.Region))
	}
	old, region := oldest(views, nil)
	return s.checkAge(old, "what is known of "+string(region))
}
