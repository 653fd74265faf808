package safety

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// record is the model of one instance id: what the region should hold of it.
type record struct {
	present     bool
	incarnation uint64
	value       string
}

// step says whether a call may have had its answer when the record was r, and what the
// record is afterwards. It is P1 and P9 as a program: what was acknowledged is read, the
// highest incarnation wins, and an older one changes nothing.
func (r record) step(c call) (bool, record) {
	says := func(statuses ...int) bool {
		for _, s := range append(statuses, 0) {
			if c.status == s {
				return true
			}
		}
		return false
	}
	fenced := r.present && c.incarnation != 0 && c.incarnation < r.incarnation
	switch {
	case c.kind == read && !r.present:
		return says(http.StatusNotFound), r
	case c.kind == read:
		return says(http.StatusOK) && c.found == r.incarnation && c.value == r.value, r
	case fenced:
		return says(http.StatusConflict) && (c.status == 0 || c.found == r.incarnation), r
	case c.kind == register:
		next := record{true, max(c.incarnation, 1), c.value}
		want := http.StatusCreated
		if r.present {
			next.incarnation = max(c.incarnation, r.incarnation)
			want = http.StatusOK
		}
		return says(want) && (c.status == 0 || c.found == next.incarnation), next
	case !r.present:
		// 204 when it was there as the call came, and somebody else removed it.
		return says(http.StatusNotFound, http.StatusNoContent), r
	}
	return says(http.StatusNoContent), record{}
}

var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		at := map[api.InstanceKey]int{}
		var out [][]porcupine.Operation
		for _, op := range history {
			key := op.Input.(call).key
			i, ok := at[key]
			if !ok {
				i = len(out)
				at[key] = i
				out = append(out, nil)
			}
			out[i] = append(out[i], op)
		}
		return out
	},
	Init: func() any { return record{} },
	Step: func(state, input, _ any) (bool, any) {
		ok, next := state.(record).step(input.(call))
		return ok, next
	},
	DescribeOperation: func(input, _ any) string { return input.(call).String() },
	DescribeState: func(state any) string {
		if r := state.(record); r.present {
			return fmt.Sprintf("incarnation %d, %s", r.incarnation, r.value)
		}
		return "not registered"
	},
}

// checkHistory reports whether the calls have an order, within the times that they were under
// way, in which one record per id explains every answer. A call of which nobody knows what
// came of it may have happened at any time after it began, or never.
func checkHistory(calls []call, patience time.Duration) (porcupine.CheckResult, porcupine.LinearizationInfo) {
	history := make([]porcupine.Operation, 0, len(calls))
	for _, c := range calls {
		op := porcupine.Operation{ClientId: c.client, Input: c, Output: c.status, Call: int64(c.begun), Return: int64(c.ended)}
		if c.status == 0 {
			op.Return = math.MaxInt64
		}
		history = append(history, op)
	}
	return porcupine.CheckOperationsVerbose(model, history, patience)
}

// picture writes the history as a page to look at, and returns where.
func picture(t *testing.T, info porcupine.LinearizationInfo) string {
	t.Helper()
	if os.Getenv("NEARSIDE_ATTEMPT") != "" {
		return "nothing: an attempt leaves no picture"
	}
	dir, err := filepath.Abs(filepath.Join("..", ".artifacts"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%d.html", t.Name(), time.Now().UnixNano()))
	if err := porcupine.VisualizePath(model, info, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// P1, P4, P9, test 1 of the failure analysis: eight clients register, deregister and read (strong)
// twenty ids while the node is killed, paused and cut off and its store forgets history every
// 200 ms. Each id's history must have one order that explains every answer.
func TestLinearizableRegistry(t *testing.T) {
	linearizable(t, newWorld(t), 7*time.Second)
}

// P1, P4, P9: the same against three nodes, with the clients spread over them and strong reads
// anywhere; killed and paused are any node, the one whose member leads and the owner of liveness.
func TestLinearizableThreeNodes(t *testing.T) {
	linearizable(t, newWorldOf(t, cluster.NewRegion(t, home, 3)), shortOrLong(t))
}

// shortOrLong returns how long a round against three nodes is: in a soak long enough for pauses
// in which another node takes over.
func shortOrLong(t *testing.T) time.Duration {
	t.Helper()
	return min(lasting(t, 5*time.Second), 25*time.Second)
}

// linearizable makes traffic and trouble in rounds of each, which have ids of their own, and
// checks each id's history.
func linearizable(t *testing.T, w *world, each time.Duration) {
	t.Helper()
	start := time.Now()
	length := lasting(t, each)
	rounds, operations, unknown, refused, illegal := 0, 0, 0, 0, 0
	var checking time.Duration
	for time.Since(start) < length && illegal == 0 {
		tr := newTraffic(start, rounds)
		tr.run(t, w, w.harmFor(min(each, length)))
		rounds++
		calls := tr.calls()
		for _, c := range calls {
			if c.status == 0 {
				unknown++
			}
		}
		operations += len(calls)
		refused += tr.refused
		begun := time.Now()
		result, info := checkHistory(calls, time.Minute)
		checking += time.Since(begun)
		switch result {
		case porcupine.Ok:
		case porcupine.Illegal:
			illegal++
			t.Errorf("P1, P9: the history of round %d has no order that explains it; look at %s", rounds, picture(t, info))
		default:
			t.Errorf("the history of round %d could not be checked within a minute: too many calls are unknown", rounds)
		}
	}
	t.Logf("histories checked %d (of %d ids each), operations %d, of unknown outcome %d, not sent or failed reads %d, illegal %d; faults %v; checked in %s",
		rounds, ids, operations, unknown, refused, illegal, w.faults, checking.Round(time.Millisecond))
	if operations < 100 {
		t.Errorf("only %d operations: nothing was proved", operations)
	}
}

// The checker must be able to say no: small histories, each with one wrong answer.
func TestTheModelRefusesWhatIsWrong(t *testing.T) {
	key := api.InstanceKey{Service: "s", ID: "i"}
	at := func(n int, c call) call {
		c.key, c.begun, c.ended = key, time.Duration(10*n), time.Duration(10*n+5)
		return c
	}
	reg := func(n int, inc uint64, v string, status int, found uint64) call {
		return at(n, call{kind: register, incarnation: inc, value: v, status: status, found: found})
	}
	get := func(n, status int, inc uint64, v string) call {
		return at(n, call{kind: read, status: status, found: inc, value: v})
	}
	del := func(n int, inc uint64, status int, found uint64) call {
		return at(n, call{kind: deregister, incarnation: inc, status: status, found: found})
	}
	tests := []struct {
		name  string
		calls []call
		want  porcupine.CheckResult
	}{
		{"a life", []call{reg(1, 1, "a", 201, 1), get(2, 200, 1, "a"), reg(3, 2, "b", 200, 2), del(4, 1, 409, 2), del(5, 2, 204, 0), get(6, 404, 0, "")}, porcupine.Ok},
		{"an acknowledged registration is lost", []call{reg(1, 1, "a", 201, 1), get(2, 404, 0, "")}, porcupine.Illegal},
		{"a stale read", []call{reg(1, 1, "a", 201, 1), reg(2, 2, "b", 200, 2), get(3, 200, 1, "a")}, porcupine.Illegal},
		{"an older incarnation wins", []call{reg(1, 2, "a", 201, 2), reg(2, 1, "b", 200, 2)}, porcupine.Illegal},
		{"an older incarnation removes", []call{reg(1, 2, "a", 201, 2), del(2, 1, 204, 0)}, porcupine.Illegal},
		{"a deregistered instance is back", []call{reg(1, 1, "a", 201, 1), del(2, 0, 204, 0), get(3, 200, 1, "a")}, porcupine.Illegal},
		{"an unknown one happened late", []call{reg(1, 1, "a", 201, 1), reg(2, 2, "b", 0, 0), get(3, 200, 1, "a"), get(4, 200, 2, "b")}, porcupine.Ok},
		{"an unknown one happened twice", []call{reg(1, 1, "a", 0, 0), get(2, 200, 1, "a"), del(3, 0, 204, 0), get(4, 404, 0, ""), get(5, 200, 1, "a")}, porcupine.Illegal},
		{"a repeat says created", []call{reg(1, 1, "a", 201, 1), reg(2, 1, "a", 201, 1)}, porcupine.Illegal},
	}
	for _, tt := range tests {
		if got, _ := checkHistory(tt.calls, time.Minute); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
