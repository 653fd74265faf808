package node

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// P3: who keeps a connection alive to a node that stops is sent elsewhere with the next answer,
// while that is still given.
func TestALeavingNodeEndsItsConnections(t *testing.T) {
	l := &leaver{next: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })}
	s := httptest.NewServer(l)
	defer s.Close()
	for _, leaving := range []bool{false, true} {
		l.leaving.Store(leaving)
		resp, err := s.Client().Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.Close != leaving {
			t.Errorf("leaving %t: status %d, the connection ends: %t", leaving, resp.StatusCode, resp.Close)
		}
	}
}
