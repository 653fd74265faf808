package safety

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// truth is what all watchers of a service were told together, held against the ledger of
// acknowledged writes and the final list.
type truth struct {
	broken    []string
	events    map[uint64]map[api.InstanceKey]event // by revision
	revisions []uint64                             // sorted
	spans     [][2]uint64                          // after, up to: told without a gap by somebody; sorted, apart
	byKey     map[api.InstanceKey][]event
}

func (tr *truth) wrong(format string, args ...any) {
	tr.broken = append(tr.broken, fmt.Sprintf(format, args...))
}

// covered reports whether everything after from up to to was told to somebody.
func (tr *truth) covered(from, to uint64) bool {
	return slices.ContainsFunc(tr.spans, func(s [2]uint64) bool { return s[0] <= from && to <= s[1] })
}

// checkWatches returns every broken guarantee of the service's watches. final is a strong
// list of the end, as a segment's items at its revision.
func checkWatches(service api.ServiceName, segments []segment, acked []call, final segment) []string {
	tr := &truth{events: map[uint64]map[api.InstanceKey]event{}, byKey: map[api.InstanceKey][]event{}}
	var own []segment
	for _, s := range segments {
		if slices.Contains(s.services, service) {
			s.events = of(service, s.events)
			s.items = of(service, s.items)
			own = append(own, s)
		}
	}
	tr.gather(own)
	for _, s := range own {
		tr.checkReliable(s)
	}
	final.items = of(service, final.items)
	for _, s := range append(own, final) {
		if s.listed {
			tr.checkItems(s)
		}
	}
	for _, c := range acked {
		if c.key.Service == service {
			tr.checkAcknowledged(c)
		}
	}
	return tr.broken
}

func of(service api.ServiceName, list []event) []event {
	return slices.DeleteFunc(slices.Clone(list), func(e event) bool { return e.key.Service != service })
}

// gather puts together what everybody was told. Two watchers must not be told different
// things of one revision.
func (tr *truth) gather(segments []segment) {
	for _, s := range segments {
		tr.spans = append(tr.spans, [2]uint64{s.start, s.upTo})
		for _, e := range s.events {
			at := tr.events[e.revision]
			if at == nil {
				at = map[api.InstanceKey]event{}
				tr.events[e.revision] = at
			}
			if was, ok := at[e.key]; ok && was != e {
				tr.wrong("P5: revision %d is told as %+v and as %+v", e.revision, was, e)
			}
			at[e.key] = e
			if want := map[api.Op]api.Cause{api.OpPut: api.CauseRegister, api.OpDelete: api.CauseDeregister}[e.op]; e.cause != want {
				tr.wrong("P5: revision %d: the %s of %s has the cause %s, want %s", e.revision, e.op, e.key.ID, e.cause, want)
			}
		}
	}
	for r, at := range tr.events {
		tr.revisions = append(tr.revisions, r)
		for k, e := range at {
			tr.byKey[k] = append(tr.byKey[k], e)
		}
	}
	slices.Sort(tr.revisions)
	for _, list := range tr.byKey {
		slices.SortFunc(list, func(a, b event) int { return cmp.Compare(a.revision, b.revision) })
	}
	slices.SortFunc(tr.spans, func(a, b [2]uint64) int { return cmp.Compare(a[0], b[0]) })
	var merged [][2]uint64
	for _, s := range tr.spans {
		if n := len(merged); n > 0 && s[0] <= merged[n-1][1] {
			merged[n-1][1] = max(merged[n-1][1], s[1])
			continue
		}
		merged = append(merged, s)
	}
	tr.spans = merged
}

// checkReliable: what anybody was told between a segment's ends, it was told too, whole
// revisions at a time.
func (tr *truth) checkReliable(s segment) {
	told := map[uint64]int{}
	for _, e := range s.events {
		told[e.revision]++
	}
	from, found := slices.BinarySearch(tr.revisions, s.start)
	if found {
		from++
	}
	for _, r := range tr.revisions[from:] {
		if r > s.upTo {
			return
		}
		switch n := len(tr.events[r]); told[r] {
		case n:
		case 0:
			tr.wrong("P5: %s was not told of revision %d, between %d and %d, and of no reset", s.watcher, r, s.start, s.upTo)
		default:
			tr.wrong("P5: %s was told of %d of the %d changes of revision %d", s.watcher, told[r], n, r)
		}
	}
}

// checkItems: a list at a revision is what the changes up to it leave.
func (tr *truth) checkItems(s segment) {
	listed := map[api.InstanceKey]event{}
	for _, i := range s.items {
		listed[i.key] = i
		if i.revision > s.start {
			tr.wrong("P5: the list of %s at %d holds %s of revision %d", s.watcher, s.start, i.key.ID, i.revision)
		}
	}
	for key, list := range tr.byKey {
		n := 0
		for n < len(list) && list[n].revision <= s.start {
			n++
		}
		if n == 0 {
			continue
		}
		last := list[n-1]
		i, ok := listed[key]
		switch {
		case ok && i.revision < last.revision:
			tr.wrong("P5: the list of %s at %d has %s of revision %d, which was changed at %d (%s)", s.watcher, s.start, key.ID, i.revision, last.revision, last.op)
		case ok && i.revision == last.revision && (i.value != last.value || i.incarnation != last.incarnation || last.op == api.OpDelete):
			tr.wrong("P5: the list of %s at %d has %+v, told before as %+v", s.watcher, s.start, i, last)
		case ok && i.revision > last.revision && tr.covered(last.revision, i.revision):
			tr.wrong("P5: the list of %s at %d has %s of revision %d, of which nobody was told", s.watcher, s.start, key.ID, i.revision)
		case !ok && last.op == api.OpPut && tr.covered(last.revision, s.start):
			tr.wrong("P1, P5: %s, put at %d, is missing in the list of %s at %d, and nobody was told of its removal", key.ID, last.revision, s.watcher, s.start)
		}
	}
}

// checkAcknowledged: whoever watched all the while was told of an acknowledged write.
func (tr *truth) checkAcknowledged(c call) {
	switch {
	case c.kind == register && (c.status == http.StatusOK || c.status == http.StatusCreated):
		if c.revision == 0 || !tr.covered(c.revision-1, c.revision) {
			return
		}
		e, ok := tr.events[c.revision][c.key]
		if !ok || e.op != api.OpPut || e.value != c.value || e.incarnation != c.found {
			tr.wrong("P1, P5: acknowledged, and not told: %s; told of revision %d: %+v", c, c.revision, e)
		}
	case c.kind == deregister && c.status == http.StatusNoContent:
		if c.before == 0 || !tr.covered(c.before, c.seen) {
			return
		}
		if !slices.ContainsFunc(tr.byKey[c.key], func(e event) bool {
			return e.op == api.OpDelete && e.revision > c.before && e.revision <= c.seen
		}) {
			tr.wrong("P5: acknowledged between %d and %d, and not told: %s", c.before, c.seen, c)
		}
	}
}

// listAll returns a strong list of the services as a segment without events.
func listAll(t *testing.T, w *world) segment {
	t.Helper()
	final := segment{watcher: "the final list", services: services, listed: true}
	for _, s := range services {
		resp, err := http.Get(w.n.URL() + api.PathInstances(s) + "?consistency=strong&limit=1000")
		if err != nil {
			t.Fatal(err)
		}
		var l api.InstanceList
		err = json.NewDecoder(resp.Body).Decode(&l)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("the final list of %s: status %d, %v", s, resp.StatusCode, err)
		}
		if final.start, err = strconv.ParseUint(resp.Header.Get(api.HeaderRevision), 10, 64); err != nil {
			t.Fatal(err)
		}
		for _, i := range l.Instances {
			final.items = append(final.items, event{i.Revision, api.InstanceKey{Service: s, ID: i.ID}, api.OpPut, "", i.Incarnation, i.Metadata["v"]})
		}
	}
	return final
}

// markers registers one more instance of each service and returns their revisions.
func markers(t *testing.T, w *world, round int) map[api.ServiceName]uint64 {
	t.Helper()
	out := map[api.ServiceName]uint64{}
	for _, s := range services {
		var in api.Instance
		cluster.Within(t, 15*time.Second, "a last registration", func() error {
			_, err := w.n.Client().Do(http.MethodPut, api.PathInstance(s, api.InstanceID(fmt.Sprintf("%s-%d", markerName, round))),
				api.Registration{Address: "127.0.0.1", Port: 1, TTL: api.Duration(time.Hour)}, &in)
			return err
		})
		out[s] = in.Revision
	}
	return out
}

// P5, P1, P4, test 2 of the failure analysis: the traffic and the faults of TestLinearizableRegistry, and
// watchers who stay, are cut, resume at wrong revisions, are slow. What they were told is
// held against each other, the ledger of acknowledged writes and the final list.
func TestWatchGuarantees(t *testing.T) {
	watchGuarantees(t, newWorld(t), 7*time.Second)
}

// P5, P1, P4: the same against three nodes, with watchers at each and some that resume at another
// node than they were at.
func TestWatchGuaranteesThreeNodes(t *testing.T) {
	watchGuarantees(t, newWorldOf(t, cluster.NewRegion(t, home, 3)), shortOrLong(t))
}

func watchGuarantees(t *testing.T, w *world, each time.Duration) {
	t.Helper()
	start := time.Now()
	length := lasting(t, each)
	rounds, checked, broken, resets, resumes, opened := 0, 0, 0, 0, 0, 0
	for time.Since(start) < length && broken == 0 {
		tr := newTraffic(start, rounds)
		a := w.watch()
		tr.run(t, w, w.harmFor(min(each, length)))
		a.end(w, markers(t, w, rounds))
		final := listAll(t, w)
		rounds++
		var segments []segment
		var wrong []string
		for _, x := range a.watchers {
			segments = append(segments, x.segments...)
			wrong = append(wrong, x.broken...)
			resets += x.resets
			resumes += x.resumes
			opened += x.opened
		}
		for _, s := range segments {
			checked += len(s.events) + len(s.items)
		}
		for _, s := range services {
			wrong = append(wrong, checkWatches(s, segments, tr.calls(), final)...)
		}
		broken += len(wrong)
		for _, line := range wrong[:min(20, len(wrong))] {
			t.Error(line)
		}
	}
	t.Logf("watch events checked %d, guarantees broken %d; rounds %d, streams %d, resumed %d, reset %d; faults %v", checked, broken, rounds, opened, resumes, resets, w.faults)
	if checked < 1000 {
		t.Errorf("only %d events: nothing was proved", checked)
	}
}

// The checker must be able to say no.
func TestTheWatchCheckerFindsWhatIsWrong(t *testing.T) {
	const service = api.ServiceName("s")
	put := func(rev uint64, id, value string) event {
		return event{rev, api.InstanceKey{Service: service, ID: api.InstanceID(id)}, api.OpPut, api.CauseRegister, 1, value}
	}
	del := func(rev uint64, id string) event {
		return event{rev, api.InstanceKey{Service: service, ID: api.InstanceID(id)}, api.OpDelete, api.CauseDeregister, 1, ""}
	}
	told := func(start, upTo uint64, events ...event) segment {
		return segment{watcher: "w", services: []api.ServiceName{service}, start: start, upTo: upTo, events: events}
	}
	list := func(at uint64, items ...event) segment {
		for i := range items {
			items[i].cause = ""
		}
		return segment{watcher: "l", services: []api.ServiceName{service}, start: at, upTo: at, listed: true, items: items}
	}
	ack := func(rev uint64, id, value string) call {
		return call{kind: register, key: api.InstanceKey{Service: service, ID: api.InstanceID(id)}, status: 201, revision: rev, value: value, found: 1}
	}
	gone := call{kind: deregister, key: api.InstanceKey{Service: service, ID: "a"}, status: 204, before: 2, seen: 5}
	unknown := del(3, "a")
	unknown.cause = api.CauseUnknown
	whole := told(1, 9, put(2, "a", "1"), put(4, "b", "1"))
	tests := []struct {
		name     string
		segments []segment
		acked    []call
		final    segment
		says     string // "" = nothing is wrong
	}{
		{"all is well", []segment{whole, told(3, 6, put(4, "b", "1"))}, []call{ack(2, "a", "1")}, list(9, put(2, "a", "1"), put(4, "b", "1")), ""},
		{"a change is dropped for one", []segment{whole, told(3, 6)}, nil, list(9, put(2, "a", "1"), put(4, "b", "1")), "was not told of revision 4"},
		{"a change is dropped for all", []segment{told(1, 9, put(4, "b", "1"))}, []call{ack(2, "a", "1")}, list(9, put(2, "a", "1"), put(4, "b", "1")), "acknowledged, and not told"},
		{"half a revision", []segment{told(1, 9, put(2, "a", "1"), put(2, "b", "1")), told(1, 9, put(2, "a", "1"))}, nil, list(9, put(2, "a", "1"), put(2, "b", "1")), "1 of the 2 changes"},
		{"two truths", []segment{whole, told(1, 3, put(2, "a", "2"))}, nil, list(9, put(2, "a", "1"), put(4, "b", "1")), "is told as"},
		{"a delete is dropped for all", []segment{told(1, 9, put(2, "a", "1"))}, []call{gone}, list(9), "acknowledged between 2 and 5"},
		{"a delete without its cause", []segment{told(1, 9, put(2, "a", "1"), unknown)}, nil, list(9), "has the cause unknown"},
		{"a list has lost one", []segment{whole}, nil, list(9, put(2, "a", "1")), "is missing"},
		{"a list is old", []segment{told(1, 9, put(2, "a", "1"), put(4, "a", "2"))}, nil, list(9, put(2, "a", "1")), "was changed at 4"},
		{"a gap that a reset announced", []segment{told(1, 3, put(2, "a", "1")), list(6, put(5, "c", "1"), put(2, "a", "1"))}, []call{ack(5, "c", "1")}, list(6, put(2, "a", "1"), put(5, "c", "1")), ""},
	}
	for _, tt := range tests {
		got := strings.Join(checkWatches(service, tt.segments, tt.acked, tt.final), "\n")
		if tt.says == "" && got != "" || !strings.Contains(got, tt.says) {
			t.Errorf("%s: it says %q, want %q", tt.name, got, tt.says)
		}
	}
}
