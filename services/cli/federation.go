package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) federationCommand() *cobra.Command {
	group := &cobra.Command{
		Use:     "federation",
		Short:   "Show the links between regions",
		Example: `  nearside federation status`,
	}
	group.AddCommand(&cobra.Command{
		Use:   "status",
		Short: "Show the node's links to the other regions",
		Long: `Show the node's links to the other regions: state, age of what came over them, how far
behind it is, and what went wrong last. -o wide shows more; -o json has the readers too.`,
		Example: `  nearside federation status
  nearside federation status --max-stale 30s -o wide`,
		Args: argCount(0, 0, ""),
		RunE: a.verb(func(ctx context.Context, s *session, _ []string) error { return s.federation(ctx) }),
	})
	return group
}

// federation prints GET /v1/federation.
func (s *session) federation(ctx context.Context) error {
	var info api.FederationInfo
	if _, err := s.client.get(ctx, api.PathFederation, nil, &info); err != nil {
		return err
	}
	v := view{data: info, lines: []any{}}
	var (
		rows  [][]cell
		views []api.Origin
	)
	now := s.now()
	count := func(n uint64) cell { return text(strconv.FormatUint(n, 10)) }
	for _, l := range info.Links {
		v.lines = append(v.lines, l)
		v.names = append(v.names, string(l.Peer))
		views = append(views, l.Replica)
		state := text(l.State)
		if l.State == "unreachable" {
			state.paint = red
		}
		since := ""
		if !l.Since.IsZero() {
			since = shortDuration(now.Sub(l.Since))
		}
		rows = append(rows, []cell{
			text(string(l.Peer)), state, text(since), age(ageOf(l.Replica)), count(l.HeadLag), roundTrip(l.RTTMS), number(l.Services),
			count(l.BytesIn), count(l.Frames), count(l.Snapshots), count(l.Refused), number(l.Attempts), text(l.LastError),
		})
	}
	v.text = func(t *sheet) {
		columns := narrow("PEER", "STATE", "SINCE", "AGE", "BEHIND", "RTT", "SERVICES")
		columns = append(columns, wideOnly("BYTES-IN", "FRAMES", "SNAPSHOTS", "REFUSED", "ATTEMPTS")...)
		t.table(append(columns, narrow("LAST-ERROR")...), rows)
	}
	if err := s.out.print(v); err != nil {
		return err
	}
	if !s.out.machine() && len(info.Links) == 0 {
		s.note("%s is not linked to any region; \"nearside server --peer REGION=URL\" links it", orHere(info.Region))
	}
	old, region := oldest(views, nil)
	return s.checkAge(old, "what is known of "+string(region))
}
