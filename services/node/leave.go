package node

import (
	"net/http"
	"sync/atomic"
)

// leaver ends connections with their next answer once the node stops: a client that keeps one
// alive would otherwise stay until the last moment, and lose the request that crosses the end.
type leaver struct {
	next    http.Handler
	leaving atomic.Bool
}

func (l *leaver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.leaving.Load() {
		w.Header().Set("Connection", "close")
	}
	l.next.ServeHTTP(w, r)
}
