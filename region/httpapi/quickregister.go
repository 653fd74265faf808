package httpapi

import (
	"bytes"
	"io"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// decodeRegistration reads the body of a registration.
func (r *request) decodeRegistration(reg *api.Registration) error {
	if err := r.checkMedia(api.MaxBodyBytes); err != nil {
		return err
	}
	b := buffers.Get().(*buffer)
	defer b.release()
	if _, err := b.ReadFrom(io.LimitReader(r.Body, api.MaxBodyBytes+1)); err != nil {
		return &api.Error{Code: api.CodeInvalidRequest, Detail: "the request body ended early", Remedy: "send it again"}
	}
	var plain bool
	if *reg, plain = quickRegistration(b.Bytes()); plain && b.Len() <= api.MaxBodyBytes {
		return nil
	}
	*reg = api.Registration{}
	return api.DecodeStrict(bytes.NewReader(b.Bytes()), reg)
}

// quickRegistration reads a registration that is written plainly, as quickHeartbeats reads
// heartbeats; one with checks is left to the reader of everything.
func quickRegistration(body []byte) (reg api.Registration, ok bool) {
	q := quick{b: body}
	q.want('{')
	seen := 0
	for more := !q.is('}'); more; more = q.is(',') {
		name := q.text()
		q.want(':')
		bit := 0
		switch string(name) {
		case "address":
			bit, reg.Address = 1<<0, string(q.text())
		case "port":
			bit, reg.Port = 1<<1, int(q.number())
		case "ports":
			bit, reg.Ports = 1<<2, quickMap(&q, func() int { return int(q.number()) })
		case "zone":
			bit, reg.Zone = 1<<3, api.Zone(q.text())
		case "weight":
			weight := int(q.number())
			bit, reg.Weight = 1<<4, &weight
		case "capacity":
			bit, reg.Capacity = 1<<5, int(q.number())
		case "version":
			bit, reg.Version = 1<<6, string(q.text())
		case "tags":
			bit, reg.Tags = 1<<7, q.texts()
		case "metadata":
			bit, reg.Metadata = 1<<8, quickMap(&q, func() string { return string(q.text()) })
		case "ttl":
			bit, reg.TTL = 1<<9, q.duration()
		case "incarnation":
			bit, reg.Incarnation = 1<<10, q.number()
		case "status":
			bit, reg.Status = 1<<11, api.Status(q.text())
		}
		if bit == 0 || seen&bit != 0 {
			q.bad = true
		}
		if seen |= bit; q.bad {
			return api.Registration{}, false
		}
	}
	if seen > 0 {
		q.want('}')
	}
	q.space()
	return reg, !q.bad && q.i == len(q.b)
}

// quickMap reads an object whose keys are not known; none may come twice.
func quickMap[V any](q *quick, value func() V) map[string]V {
	m := map[string]V{}
	q.want('{')
	for more := !q.is('}'); more; more = q.is(',') {
		name := string(q.text())
		q.want(':')
		if _, twice := m[name]; twice {
			q.bad = true
		}
		if m[name] = value(); q.bad {
			return nil
		}
	}
	if len(m) > 0 {
		q.want('}')
	}
	return m
}

func (q *quick) texts() []string {
	list := []string{}
	q.want('[')
	for more := !q.is(']'); more && !q.bad; more = q.is(',') {
		list = append(list, string(q.text()))
	}
	if len(list) > 0 {
		q.want(']')
	}
	return list
}

func (q *quick) duration() api.Duration {
	d, err := time.ParseDuration(string(q.text()))
	if err != nil {
		q.bad = true
	}
	return api.Duration(d)
}
