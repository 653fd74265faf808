package httpapi

import (
	"bytes"

	"github.com/nearside/nearside/sdk/api"
)

// quickHeartbeats reads a batch of heartbeats that is written plainly: only the fields that
// there are, none twice, names of printable ASCII without escapes, whole numbers. It is ten
// times as quick as the reader of everything else, which decides on what it does not read (ok is
// false then), so it need not know what is wrong.
func quickHeartbeats(body []byte) (list []api.BatchHeartbeat, ok bool) {
	q := quick{b: body}
	q.want('{')
	if string(q.text()) != "heartbeats" {
		return nil, false
	}
	q.want(':')
	list, _ = q.heartbeats(api.MaxBatchItems)
	q.want('}')
	q.space()
	return list, !q.bad && q.i == len(q.b)
}

// heartbeats reads a list of them; more than most are not plain. What a stranger writes must not cost many
// times its bytes.
func (q *quick) heartbeats(most int) (list []api.BatchHeartbeat, ok bool) {
	list = make([]api.BatchHeartbeat, 0, min(most, bytes.Count(q.b[q.i:], []byte{'{'})))
	q.want('[')
	for more := !q.is(']'); more; more = q.is(',') {
		if len(list) == most {
			q.bad = true
			return list, false
		}
		list = append(list, q.heartbeat())
	}
	if len(list) > 0 {
		q.want(']')
	}
	return list, !q.bad
}

// quick is a reader of plain JSON. After the first thing that is not plain it is bad and
// reads nothing more.
type quick struct {
	b   []byte
	i   int
	bad bool
}

func (q *quick) heartbeat() (h api.BatchHeartbeat) {
	q.want('{')
	seen := 0
	for more := !q.is('}'); more; more = q.is(',') {
		name := q.text()
		q.want(':')
		bit := 0
		switch string(name) {
		case "service":
			bit, h.Service = 1, api.ServiceName(q.text())
		case "id":
			bit, h.ID = 2, api.InstanceID(q.text())
		case "ns":
			bit, h.Namespace = 4, api.Namespace(q.text())
		case "incarnation":
			bit, h.Incarnation = 8, q.number()
		case "load":
			n := q.number()
			q.bad = q.bad || n > api.MaxLoadPercent
			bit, h.Load = 16, api.LoadOf(int(min(n, api.MaxLoadPercent)))
		}
		if bit == 0 || seen&bit != 0 {
			q.bad = true
		}
		if seen |= bit; q.bad {
			return h
		}
	}
	if seen > 0 {
		q.want('}')
	}
	return h
}

func (q *quick) space() {
	for q.i < len(q.b) && (q.b[q.i] == ' ' || q.b[q.i] == '\n' || q.b[q.i] == '\r' || q.b[q.i] == '\t') {
		q.i++
	}
}

// is takes c when it comes next.
func (q *quick) is(c byte) bool {
	q.space()
	if q.bad || q.i == len(q.b) || q.b[q.i] != c {
		return false
	}
	q.i++
	return true
}

func (q *quick) want(c byte) {
	if !q.is(c) {
		q.bad = true
	}
}

func (q *quick) text() []byte {
	q.want('"')
	for begin := q.i; !q.bad && q.i < len(q.b); q.i++ {
		switch c := q.b[q.i]; {
		case c == '"':
			q.i++
			return q.b[begin : q.i-1]
		case c < ' ' || c > '~' || c == '\\':
			q.bad = true
		}
	}
	q.bad = true
	return nil
}

func (q *quick) number() (n uint64) {
	q.space()
	begin := q.i
	for ; q.i < len(q.b) && q.b[q.i] >= '0' && q.b[q.i] <= '9'; q.i++ {
		n = n*10 + uint64(q.b[q.i]-'0')
	}
	digits := q.i - begin
	// 18 digits cannot overflow; a number may not begin with a zero, and what follows it
	// (a point, an exponent) is no comma.
	if digits == 0 || digits > 18 || digits > 1 && q.b[begin] == '0' {
		q.bad = true
	}
	return n
}
