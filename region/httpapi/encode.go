package httpapi

import (
	"bytes"
	"strconv"

	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// The answers that are asked for most are written by hand, byte for byte what encoding/json
// makes of them (fuzzed against it), at a tenth of its price.

// plain is a body that writes itself.
type plain interface{ appendJSON(b []byte) []byte }

// ackBody is api.HeartbeatAck.
type ackBody struct{ *api.HeartbeatAck }

func (a ackBody) appendJSON(b []byte) []byte {
	b = appendText(append(b, `{"id":`...), string(a.ID))
	b = appendText(append(b, `,"status":`...), string(a.Status))
	b = strconv.AppendUint(append(b, `,"incarnation":`...), a.Incarnation, 10)
	b = appendText(append(b, `,"ttl":`...), a.TTL.String())
	b = appendText(append(b, `,"epoch":`...), a.Epoch.String())
	return append(b, '}')
}

// resultsBody is api.BatchResults.
type resultsBody struct{ *api.BatchResults }

func (r resultsBody) appendJSON(b []byte) []byte {
	b = append(b, `{"results":`...)
	switch {
	case r.Results == nil:
		b = append(b, `null`...)
	default:
		b = append(b, '[')
		for i := range r.Results {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendResult(b, &r.Results[i])
		}
		b = append(b, ']')
	}
	return append(strconv.AppendInt(append(b, `,"failed":`...), int64(r.Failed), 10), '}')
}

func appendResult(b []byte, r *api.BatchResult) []byte {
	b = append(b, '{')
	if r.Namespace != "" {
		b = append(appendText(append(b, `"ns":`...), string(r.Namespace)), ',')
	}
	b = appendText(append(b, `"service":`...), string(r.Service))
	b = appendText(append(b, `,"id":`...), string(r.ID))
	b = strconv.AppendBool(append(b, `,"ok":`...), r.OK)
	b = strconv.AppendInt(append(b, `,"status":`...), int64(r.Status), 10)
	if r.Created {
		b = append(b, `,"created":true`...)
	}
	b = appendSome(b, `,"code":`, string(r.Code))
	b = appendSome(b, `,"detail":`, r.Detail)
	b = appendSome(b, `,"remedy":`, r.Remedy)
	b = appendSome(b, `,"field":`, r.Field)
	if r.Incarnation != 0 {
		b = strconv.AppendUint(append(b, `,"incarnation":`...), r.Incarnation, 10)
	}
	return append(b, '}')
}

// resolution is an api.Resolution whose larger part is encoded once for many callers.
type resolution struct {
	shared []byte // up to the views
	views  []api.Origin
}

func newResolution(a *registry.Answer, views []api.Origin) (resolution, error) {
	shared, err := a.Form(encodeShared)
	return resolution{shared, views}, err
}

// encodeShared returns the encoded resolution up to its views.
func encodeShared(r *api.Resolution) ([]byte, error) {
	out := *r
	whole(&out)
	var buf bytes.Buffer
	if err := newEncoder(&buf).Encode(&out); err != nil {
		return nil, err
	}
	const end = "[]}\n"
	return bytes.Clone(bytes.TrimSuffix(buf.Bytes(), []byte(end))), nil
}

func (r resolution) appendJSON(b []byte) []byte {
	b = append(append(b, r.shared...), '[')
	for i := range r.views {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendOrigin(b, &r.views[i])
	}
	return append(b, "]}"...)
}

func appendOrigin(b []byte, o *api.Origin) []byte {
	b = appendText(append(b, `{"region":`...), string(o.Region))
	b = appendText(append(b, `,"epoch":`...), o.Epoch.String())
	b = strconv.AppendUint(append(b, `,"revision":`...), o.Revision, 10)
	b = strconv.AppendInt(append(b, `,"age_ms":`...), o.AgeMS, 10)
	b = appendText(append(b, `,"state":`...), string(o.State))
	b = strconv.AppendBool(append(b, `,"complete":`...), o.Complete)
	b = appendSome(b, `,"source":`, o.Source)
	if o.RTTMS != 0 {
		b = strconv.AppendInt(append(b, `,"rtt_ms":`...), o.RTTMS, 10)
	}
	if o.Drained != 0 {
		b = strconv.AppendFloat(append(b, `,"drained":`...), o.Drained, 'f', -1, 64)
	}
	if o.Down {
		b = append(b, `,"down":true`...)
	}
	if len(o.Addresses) > 0 {
		b = append(b, `,"addresses":`...)
		for i, a := range o.Addresses {
			b = appendText(append(b, "[,"[min(i, 1)]), a)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// appendSome adds a field unless it is empty.
func appendSome(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return appendText(append(b, name...), s)
}

// appendText adds a JSON string.
func appendText(b []byte, s string) []byte { return encoded.AppendText(b, s) }
