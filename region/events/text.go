package events

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/nearside/nearside/sdk/api"
)

// encoder writes events as JSON without the escapes that only HTML needs.
type encoder struct {
	buf bytes.Buffer
	enc *json.Encoder
}

func newEncoder() *encoder {
	e := &encoder{}
	e.enc = json.NewEncoder(&e.buf)
	e.enc.SetEscapeHTML(false)
	return e
}

// encode returns the JSON of e, valid until the next call.
func (c *encoder) encode(e *api.Event) ([]byte, error) {
	c.buf.Reset()
	if err := c.enc.Encode(e); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(c.buf.Bytes(), []byte("\n")), nil
}

// bound makes the texts of an event fit for logs and terminals: one line each, valid
// UTF-8, no longer than the limits say. An event comes from our own code, but error texts
// and notes in it may come from strangers.
func bound(e *api.Event) {
	e.Subject = line(e.Subject, api.MaxEventSubject)
	e.Actor = line(e.Actor, api.MaxEventActor)
	e.Detail = line(e.Detail, api.MaxEventDetail)
	e.Cause.Kind = line(e.Cause.Kind, api.MaxLabelLength)
}

func line(s string, most int) string {
	if len(s) <= most && utf8.ValidString(s) && strings.IndexFunc(s, forges) < 0 {
		return s
	}
	s = strings.Map(func(r rune) rune {
		if forges(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	if len(s) <= most {
		return s
	}
	const cut = "…"
	n := most - len(cut)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + cut
}

// forges reports whether r could begin a line of its own or steer a terminal.
func forges(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029
}
