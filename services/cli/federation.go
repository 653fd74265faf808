package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) federationCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "federation",
		Short: "The links between regions: state, lag, proof, repair",
		Example: `  nearside federation status
  nearside federation lag
  nearside federation verify eu-west
  nearside federation resync eu-west`,
	}
	group.AddCommand(&cobra.Command{
		Use:   "status",
		Short: "Show the node's links to the other regions, and what is wrong with them",
		Long: `Show the node's links to the other regions: whether the peer's federation answers, how old what
came over the link is, how far behind that is, and how old the peer takes its own knowledge of this region
to be (HEARS-US). Messages name peers that complain, rows that are not used, removals that
are held back, and regions that are down, with who says so. -o wide shows more; -o json has the readers too.

A region that cannot be reached is unreachable, and what is known of it ages. It is down only when
more than half of the regions that could know agree and its endpoints do not answer.`,
		Example: `  nearside federation status
  nearside federation status --max-stale 30s -o wide   # exit 9 when something is older`,
		Args: argCount(0, 0, ""),
		RunE: a.verb(func(ctx context.Context, s *session, _ []string) error { return s.federation(ctx) }),
	}, a.lagCommand(), a.verifyCommand(), a.resyncCommand())
	return group
}

func (s *session) federationInfo(ctx context.Context) (api.FederationInfo, error) {
	var info api.FederationInfo
	_, err := s.client.get(ctx, api.PathFederation, nil, &info)
	return info, err
}

// federation prints GET /v1/federation.
func (s *session) federation(ctx context.Context) error {
	info, err := s.federationInfo(ctx)
	if err != nil {
		return err
	}
	v := view{data: info, lines: []any{}}
	var (
		rows  [][]cell
		views []api.Origin
	)
	now := s.now()
	for _, l := range info.Links {
		v.lines = append(v.lines, l)
		v.names = append(v.names, string(l.Peer))
		views = append(views, l.Replica)
		since := ""
		if !l.Since.IsZero() {
			since = shortDuration(now.Sub(l.Since))
		}
		rows = append(rows, []cell{
			text(string(l.Peer)), linkState(l), text(since), ageState(l.Replica.State), age(ageOf(l.Replica)), behind(l), hearsUs(l.PeerView),
			roundTrip(l.RTTMS), number(l.Services),
			text(string(l.Via)), text(l.Node), count(uint64(l.Proto)), count(l.BytesIn), count(l.BytesOut), count(l.Frames), count(l.Snapshots), refusals(l),
			number(l.Quarantined), number(l.Held), count(l.Unheard), number(l.Attempts), text(l.LastError),
		})
	}
	v.text = func(t *sheet) {
		columns := narrow("PEER", "LINK", "SINCE", "STATE", "AGE", "BEHIND", "HEARS-US", "RTT", "SERVICES")
		columns = append(columns, wideOnly("VIA", "NODE", "PROTO", "BYTES-IN", "BYTES-OUT", "FRAMES", "SNAPSHOTS", "REFUSED", "QUARANTINED", "HELD", "UNHEARD", "ATTEMPTS")...)
		t.table(append(columns, narrow("LAST-ERROR")...), rows)
	}
	if err := s.out.print(v); err != nil {
		return err
	}
	if !s.out.machine() {
		if len(info.Links) == 0 {
			s.note("%s is not linked to any region; \"nearside server --peer REGION=URL\" links it", orHere(info.Region))
		}
		for _, l := range info.Links {
			s.linkNotes(l)
		}
	}
	old, region := oldest(views, nil)
	return s.checkAge(old, "what is known of "+string(region))
}

// linkNotes says in sentences what is not well with a link.
func (s *session) linkNotes(l api.LinkInfo) {
	if d := l.Verdict; d != nil {
		state := "unreachable, not down"
		if d.Down {
			state = "down"
			if d.Since != nil {
				state += " for " + shortDuration(s.now().Sub(*d.Since))
			}
		}
		s.note("%s is %s: %s (%s)", l.Peer, state, d.Why, arithmetic(d))
	}
	if p := l.PeerView; p != nil && p.Complaint != "" {
		s.note("%s", clean(p.Complaint))
	}
	if l.Held > 0 {
		s.note("%s lost many services at once: %d are still shown, for %s at most", l.Peer, l.Held, shortDuration(milliseconds(l.HeldForMS)))
	}
	for _, q := range l.QuarantinedRows {
		s.note("%s: %s is not used in its newest form: %s", l.Peer, clean(q.Row), clean(q.Reason))
	}
	if more := l.Quarantined - len(l.QuarantinedRows); more > 0 && len(l.QuarantinedRows) > 0 {
		s.note("%s: and %d rows more", l.Peer, more)
	}
	if r := l.Resync; r != nil && r.State != api.ResyncDone {
		s.note("%s", resyncProgress(*r))
	}
}

// arithmetic shows how a verdict came out, in one line.
func arithmetic(d *api.RegionVerdict) string {
	var words []string
	for _, w := range d.Says {
		said := "cannot say"
		switch w.Link {
		case api.LinkUp:
			said = "reaches it"
		case api.LinkDown:
			said = "does not reach it"
		}
		switch w.Probes {
		case api.ProbesAnswer:
			said += ", endpoints answer"
		case api.ProbesSilent:
			said += ", endpoints silent"
		}
		words = append(words, fmt.Sprintf("%s: %s", w.By, said))
	}
	return fmt.Sprintf("%d of %d agree, %d needed; %s; probes from here: %d of %d failed", d.Agree, d.Of, d.Needed, strings.Join(words, "; "), d.Failed, d.Probed)
}

// linkState is whether the peer's federation answers, or that its region is down.
func linkState(l api.LinkInfo) cell {
	switch {
	case l.Replica.Down:
		return cell{text: "down", paint: red}
	case l.State == "unreachable":
		return cell{text: l.State, paint: red}
	}
	return text(l.State)
}

// behind is how many revisions and for how long a link is behind.
func behind(l api.LinkInfo) cell {
	c := count(l.HeadLag)
	if l.BehindMS > 0 {
		c.text += "/" + shortDuration(milliseconds(l.BehindMS))
		c.paint = yellow
	}
	return c
}

// hearsUs is how old a peer takes what it knows of us to be.
func hearsUs(p *api.PeerView) cell {
	switch {
	case p == nil:
		return text("?")
	case p.State == api.AgeExpired && p.Revision == 0:
		return cell{text: "never", paint: red}
	}
	c := ageState(p.State)
	c.text += "/" + shortDuration(milliseconds(p.AgeMS))
	return c
}

// refusals are the frames that were not applied, by reason.
func refusals(l api.LinkInfo) cell {
	var parts []string
	for why, n := range l.RefusedBy {
		parts = append(parts, fmt.Sprintf("%s:%d", why, n))
	}
	if len(parts) == 0 {
		return count(l.Refused)
	}
	slices.Sort(parts)
	return text(strings.Join(parts, ","))
}

func count(n uint64) cell { return text(strconv.FormatUint(n, 10)) }
