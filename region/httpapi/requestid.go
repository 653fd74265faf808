package httpapi

import (
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/nearside/nearside/sdk/api"
)

const maxRequestID = 64

// requestIDs numbers the requests that bring no id of their own: a random part per process
// and a counter, unique and cheap, and in order within a log.
type requestIDs struct {
	prefix string
	count  *atomic.Uint64
}

func newRequestIDs() requestIDs {
	return requestIDs{prefix: randomHex(5) + "-", count: new(atomic.Uint64)}
}

// of returns the client's id when it is sane, and a new one otherwise: the id is written
// to logs and answers, so it must not carry anything else.
func (g requestIDs) of(h http.Header) string {
	if id := h[api.HeaderRequestID]; len(id) > 0 && saneRequestID(id[0]) {
		return id[0]
	}
	b := append(make([]byte, 0, 32), g.prefix...)
	return string(strconv.AppendUint(b, g.count.Add(1), 10))
}

func saneRequestID(s string) bool {
	if s == "" || len(s) > maxRequestID {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
