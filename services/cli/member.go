package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

// memberLook is how often a member that is waited for is looked at.
const memberLook = 500 * time.Millisecond

func (a *app) regionCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "region",
		Short: "Drain a region; the nodes that keep its records: list, add, replace, recover",
		Example: `  nearside region drain eu-west --percent 100 --over 10m
  nearside region member list
  nearside region member add us-east-3=10.0.0.3:7403 --wait 2m
  nearside region recover --region us-east --node us-east-1 --data-dir /var/lib/nearside --confirm us-east`,
	}
	member := &cobra.Command{
		Use:   "member",
		Short: "The members of the region's cluster, one on each node",
		Example: `  nearside region member list
  nearside region member remove us-east-2`,
	}
	member.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List the members and say which of them answer",
		Long: `List the members of the region's cluster: who votes, who is a learner that still has to catch
up, who leads, and which of them answer. Exit 10 when some do not.`,
		Example: `  nearside region member list
  nearside region member list -o json`,
		Args: argCount(0, 0, ""),
		RunE: a.verb(func(ctx context.Context, s *session, _ []string) error { return s.listMembers(ctx) }),
	})
	var wait time.Duration
	add := &cobra.Command{
		Use:   "add NODE=HOST:PORT",
		Short: "Add a node's member, as a learner until it has caught up",
		Long: `Add the member of a new node, which the others will reach at HOST:PORT (its --etcd-peer-addr).
It is a learner until it has caught up, and votes from then on by itself. Then start the
node, with an empty data directory and all nodes as --cluster.

Members are added one at a time. To replace a node whose disk is lost: remove it, add it, start it.`,
		Example: `  nearside region member add us-east-3=10.0.0.3:7403
  nearside region member add us-east-3=10.0.0.3:7403 --wait 2m   # until it votes; start it meanwhile`,
		Args: argCount(1, 1, "NODE=HOST:PORT"),
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error { return s.addMember(ctx, args[0], wait) }),
	}
	add.Flags().DurationVar(&wait, "wait", 0, "wait so long until it votes (exit 8 when it does not); 0 = do not wait")
	var force bool
	remove := &cobra.Command{
		Use:   "remove NODE",
		Short: "Remove a node's member; a leader hands over first",
		Long: `Remove the member of NODE (a node's name, or the address or id of a member). If it leads, another one
leads first. It is refused (exit 7) when the members that answer would be no quorum without it; what is
missing is named. The node ends by itself; its data directory is of no use any more.`,
		Example: `  nearside region member remove us-east-2`,
		Args:    argCount(1, 1, "NODE"),
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			region, err := s.home(ctx)
			if err != nil {
				return err
			}
			q := url.Values{}
			if force {
				q.Set("force", "true")
			}
			if _, err := s.client.do(ctx, http.MethodDelete, api.PathMember(region, args[0]), q, nil); err != nil {
				return err
			}
			s.note("removed %s; to have it back: nearside region member add NODE=HOST:PORT, and start it on an empty --data-dir", args[0])
			return nil
		}),
	}
	remove.Flags().BoolVar(&force, "force", false, "although the other members seem not to answer; what would stop the store is refused all the same")
	withoutEnv(add.Flags(), "wait")
	withoutEnv(remove.Flags(), "force")
	member.AddCommand(add, remove)
	group.AddCommand(member, a.regionDrainCommand(), a.regionUndrainCommand(), a.recoverCommand())
	return group
}

// home returns the region of the node that is asked. It is in every answer, also of a node
// that has not loaded its catalogue.
func (s *session) home(ctx context.Context) (api.Region, error) {
	a, err := s.client.get(ctx, api.PathLimits, nil, nil)
	if err != nil {
		return "", err
	}
	return a.region, nil
}

func (s *session) members(ctx context.Context) (api.MemberList, error) {
	var list api.MemberList
	region, err := s.home(ctx)
	if err != nil {
		return list, err
	}
	_, err = s.client.get(ctx, api.PathMembers(region), nil, &list)
	return list, err
}

func (s *session) listMembers(ctx context.Context) error {
	list, err := s.members(ctx)
	if err != nil {
		return err
	}
	v := view{data: list, lines: []any{}}
	var rows [][]cell
	var silent []string
	for _, m := range list.Members {
		v.lines = append(v.lines, m)
		v.names = append(v.names, m.Node)
		if !m.Answers && m.Started {
			silent = append(silent, m.Node)
		}
		rows = append(rows, []cell{text(m.Node), memberState(m), text(m.Address), text(m.ID), text(m.Version)})
	}
	v.text = func(t *sheet) {
		t.table(append(narrow("NODE", "STATE", "ADDRESS"), wideOnly("ID", "VERSION")...), rows)
	}
	if err := s.out.print(v); err != nil {
		return err
	}
	if len(silent) > 0 {
		return &cliError{
			exit: ExitPartial, detail: fmt.Sprintf("%d of %d members do not answer: %s", len(silent), len(list.Members), strings.Join(silent, ", ")),
			remedy: "see their logs; one that is lost for good is replaced with member remove and member add",
		}
	}
	return nil
}

// memberState is what a member does, in one word.
func memberState(m api.Member) cell {
	switch {
	case !m.Started:
		return cell{text: "added", paint: yellow}
	case !m.Answers:
		return cell{text: "silent", paint: red}
	case m.Role == api.RoleLearner:
		return cell{text: "learner", paint: yellow}
	case m.Leader:
		return cell{text: "leader", paint: green}
	}
	return cell{text: "voter", paint: green}
}

func (s *session) addMember(ctx context.Context, arg string, wait time.Duration) error {
	node, address, ok := strings.Cut(arg, "=")
	if !ok || node == "" || address == "" {
		return usagef(s.cmd, "%q is not NODE=HOST:PORT", arg)
	}
	if wait < 0 {
		return usagef(s.cmd, "--wait %s is negative", wait)
	}
	region, err := s.home(ctx)
	if err != nil {
		return err
	}
	var m api.Member
	if err := s.client.sendJSON(ctx, http.MethodPost, api.PathMembers(region), nil, api.MemberAdd{Node: node, Address: address}, &m); err != nil {
		return err
	}
	if wait > 0 && m.Role == api.RoleLearner {
		if m, err = s.awaitVote(ctx, region, m, wait); err != nil {
			return err
		}
	}
	if err := s.out.print(view{data: m, names: []string{m.Node}, text: func(t *sheet) {
		t.pairs([][2]string{{"member", m.Node}, {"state", shown(memberState(m))}, {"address", m.Address}, {"id", m.ID}})
	}}); err != nil {
		return err
	}
	if !m.Started && !s.out.machine() {
		s.note("added; now start it: nearside server --region %s --node %s --etcd-peer-addr %s with --cluster for every node, on an empty --data-dir", region, node, address)
	}
	return nil
}

// awaitVote waits until a member votes, and tells how far it is.
func (s *session) awaitVote(ctx context.Context, region api.Region, m api.Member, wait time.Duration) (api.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	look := time.NewTicker(memberLook)
	defer look.Stop()
	told := ""
	for {
		if state := shown(memberState(m)); state != told {
			told = state
			s.note("%s: %s", m.Node, map[string]string{
				"added": "added; waiting for the node to start", "learner": "started; catching up", "silent": "started, and does not answer now",
				"voter": "caught up: it votes", "leader": "caught up: it votes, and leads",
			}[state])
		}
		if m.Role == api.RoleVoter {
			return m, nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return m, &cliError{
				exit: ExitTimeout, detail: fmt.Sprintf("%s does not vote after %s: it is still %s", m.Node, wait, told),
				remedy: "it goes on by itself: see nearside region member list; or give it up: nearside region member remove " + m.Node,
			}
		}
		var list api.MemberList
		if _, err := s.client.get(ctx, api.PathMembers(region), nil, &list); err != nil {
			if ctx.Err() == nil && !retryable(err) {
				return m, err
			}
			continue
		}
		found := false
		for _, o := range list.Members {
			if o.ID == m.ID {
				m, found = o, true
			}
		}
		if !found {
			return m, &cliError{exit: ExitConflict, detail: fmt.Sprintf("%s was removed meanwhile", m.Node)}
		}
	}
}

// retryable reports whether the same question may be answered in a moment: a cluster that
// takes in a member may have no leader for a second.
func retryable(err error) bool {
	e := asCLI(err)
	return e.exit == ExitUnreachable || e.exit == ExitTimeout
}
