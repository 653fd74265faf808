package cli

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

// eventFlags say which events are wanted.
type eventFlags struct {
	since, subject string
	kinds          []string
	limit          int
	follow         bool
	why            uint64
}

func (a *app) eventsCommand() *cobra.Command {
	var f eventFlags
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what changed in the region, and why",
		Long: `Show what changed in the region: instances that came, left, drained or timed out, the
eviction brake, the store, links to other regions, nodes. Each node keeps its own log, on
disk, for up to seven days.

Without --since the newest events are shown. With -n those of the namespace's instances alone,
and --subject is one of that namespace. With --why the event with that ID and the
earlier ones that led to it, as far as they are known.

Kinds: ` + strings.Join(kindNames(), ", ") + `.`,
		Example: `  nearside events --since 30m
  nearside events --kind evict,protection_on --subject orders
  nearside events -f -o jsonl
  nearside events --why 8850`,
		Args: argCount(0, 0, ""),
		RunE: a.verb(func(ctx context.Context, s *session, _ []string) error { return s.events(ctx, f) }),
	}
	fs := c.Flags()
	fs.StringVar(&f.since, "since", "", "from this on: how long ago (30m), a time (2026-11-22T10:00:00Z), or behind the event with this ID")
	fs.StringSliceVar(&f.kinds, "kind", nil, "only events of these kinds")
	fs.StringVar(&f.subject, "subject", "", "only events about this service, SERVICE/ID, region or node")
	fs.IntVar(&f.limit, "limit", 0, fmt.Sprintf("at most this many; 0 = all since --since, else the newest %d", api.DefaultEventLimit))
	fs.BoolVarP(&f.follow, "follow", "f", false, "go on with what happens, until interrupted")
	fs.Uint64Var(&f.why, "why", 0, "the chain of causes of the event with this ID")
	withoutEnv(fs, "since", "kind", "subject", "limit", "follow", "why")
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(kindNames(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

func kindNames() []string {
	names := make([]string, len(api.EventKinds))
	for i, k := range api.EventKinds {
		names[i] = string(k)
	}
	return names
}

func (s *session) events(ctx context.Context, f eventFlags) error {
	q := s.only()
	narrowed := len(f.kinds) > 0 || f.subject != "" || f.since != ""
	for _, k := range f.kinds {
		if !api.EventKind(k).Valid() {
			e := usagef(s.cmd, "there is no kind of events %q", k)
			e.remedy = "use " + strings.Join(kindNames(), ", ")
			return e
		}
	}
	if len(f.kinds) > 0 {
		q.Set("kind", strings.Join(f.kinds, ","))
	}
	if f.subject != "" {
		if err := api.CheckEventSubject(f.subject); err != nil {
			return err
		}
		q.Set("subject", f.subject)
	}
	if f.since != "" {
		q.Set("since", f.since)
	}
	chain := s.cmd.Flags().Changed("why")
	switch {
	case f.limit < 0:
		return usagef(s.cmd, "--limit %d is negative", f.limit)
	case chain && f.why == 0:
		return usagef(s.cmd, "--why wants the ID of an event")
	case chain && (f.follow || f.limit > 0 || narrowed):
		return usagef(s.cmd, "--why shows one event and what led to it: it goes with no other filter")
	case chain:
		return s.why(ctx, f.why)
	case f.follow && f.limit > 0:
		return usagef(s.cmd, "--limit means nothing to --follow")
	case f.follow:
		return s.followEvents(ctx, q)
	}
	return s.listEvents(ctx, q, f.limit)
}

// listEvents prints GET /v1/events, every page when a beginning is given.
func (s *session) listEvents(ctx context.Context, q url.Values, limit int) error {
	var all api.EventList
	for {
		page := api.EventList{}
		size := api.MaxListLimit
		if limit > 0 {
			size = min(size, limit-len(all.Events))
		}
		if limit > 0 || q.Has("since") {
			q.Set("limit", strconv.Itoa(size))
		}
		if _, err := s.client.get(ctx, api.PathEvents, q, &page); err != nil {
			return err
		}
		page.Events = append(all.Events, page.Events...)
		page.Gap = page.Gap || all.Gap
		all = page
		if page.Cursor == "" || limit > 0 && len(all.Events) >= limit {
			break
		}
		q.Set("cursor", page.Cursor)
	}
	if all.Events == nil {
		all.Events = []api.Event{}
	}
	if err := s.printEvents(all, all.Events); err != nil {
		return err
	}
	if s.out.machine() {
		return nil
	}
	switch {
	case len(all.Events) == 0:
		s.note("no such events")
	case all.Gap:
		s.note("events may be missing: too old (the oldest kept has the id %d), or lost when the node was killed", all.First)
	}
	if !all.Durable {
		s.note("the event log of %s is in memory only: it is lost when the node restarts", orHere(all.Region))
	}
	return nil
}

// printEvents prints events; data is what -o json shows.
func (s *session) printEvents(data any, list []api.Event) error {
	v := view{data: data, lines: []any{}}
	var rows [][]cell
	for i := range list {
		e := &list[i]
		v.lines = append(v.lines, e)
		v.names = append(v.names, strconv.FormatUint(e.ID, 10))
		rows = append(rows, []cell{
			text(strconv.FormatUint(e.ID, 10)), text(e.Time.Format(time.RFC3339)), kindCell(e.Kind), text(e.Subject), text(causeText(e.Cause)),
			text(strconv.FormatUint(e.Revision, 10)), text(e.Node), text(strings.ReplaceAll(e.Actor, " ", "/")), text(e.Detail),
		})
	}
	v.text = func(t *sheet) {
		columns := narrow("ID", "TIME", "KIND", "SUBJECT", "CAUSE")
		columns = append(columns, wideOnly("REVISION", "NODE", "ACTOR")...)
		t.table(append(columns, narrow("DETAIL")...), rows)
	}
	return s.out.print(v)
}

// causeText is a cause without blanks, so that columns can be counted: "drained<-17".
func causeText(c api.EventCause) string {
	if c.Ref == 0 {
		return c.Kind
	}
	return fmt.Sprintf("%s<-%d", c.Kind, c.Ref)
}

func kindCell(k api.EventKind) cell {
	c := cell{text: string(k)}
	switch k {
	case api.EventEvict, api.EventProtectionOn, api.EventSlowOn, api.EventStoreAway, api.EventStoreFull, api.EventLinkDown, api.EventDropped:
		c.paint = red
	case api.EventDrain, api.EventPause, api.EventLivenessOwner, api.EventEpoch, api.EventReload, api.EventNodeStop:
		c.paint = yellow
	case api.EventProtectionOff, api.EventStoreBack, api.EventLinkUp:
		c.paint = green
	}
	return c
}

// maxChain bounds a chain of causes; each leads to an older event, so it ends by itself.
const maxChain = 64

// why prints an event and, behind it, those that led to it.
func (s *session) why(ctx context.Context, id uint64) error {
	chain := []api.Event{}
	missing := uint64(0)
	for id != 0 && len(chain) < maxChain {
		e, oldest, err := s.event(ctx, id)
		if err != nil {
			return err
		}
		if e == nil && len(chain) == 0 {
			return &cliError{
				exit: ExitNotFound, detail: fmt.Sprintf("there is no event %d in this node's log", id),
				remedy: fmt.Sprintf("its oldest is %d; \"nearside events\" shows the newest", oldest),
			}
		}
		if e == nil {
			missing = id
			break
		}
		chain = append(chain, *e)
		id = min(e.Cause.Ref, e.ID-1) // always an older one
	}
	if s.out.machine() {
		return s.printEvents(chain, chain)
	}
	v := view{text: func(t *sheet) {
		for depth := range chain {
			e := &chain[depth]
			arrow := ""
			if depth > 0 {
				arrow = strings.Repeat("   ", depth-1) + "<- "
			}
			t.line("%s%d  %s  %s %s  (%s)", arrow, e.ID, e.Time.Format(time.RFC3339), e.Kind, e.Subject, e.Cause.Kind)
			if what := joinNonEmpty(e.Detail, e.Actor); what != "" {
				t.line("%s%s", strings.Repeat("   ", depth+1), what)
			}
		}
	}}
	if err := s.out.print(v); err != nil {
		return err
	}
	if missing != 0 {
		s.note("event %d, before these, is not kept any more", missing)
	}
	return nil
}

func joinNonEmpty(detail, actor string) string {
	switch {
	case actor == "":
		return detail
	case detail == "":
		return "by " + actor
	}
	return detail + ", by " + actor
}

// event returns the event with an id, nil when the log does not have it, and the oldest id
// that it has.
func (s *session) event(ctx context.Context, id uint64) (*api.Event, uint64, error) {
	var page api.EventList
	q := url.Values{"since": {strconv.FormatUint(id-1, 10)}, "limit": {"1"}}
	if _, err := s.client.get(ctx, api.PathEvents, q, &page); err != nil {
		return nil, 0, err
	}
	if len(page.Events) == 0 || page.Events[0].ID != id {
		return nil, page.First, nil
	}
	return &page.Events[0], page.First, nil
}
