package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// Parameters arrive as they were meant.
func TestEventsQueries(t *testing.T) {
	f := newFake()
	h, _ := testDoor(t, f, nil)
	for target, want := range map[string]events.Query{
		"/v1/events":                                     {},
		"/v1/events?since=0":                             {HasAfter: true},
		"/v1/events?since=17&limit=5&cursor=20":          {After: 17, HasAfter: true, Limit: 5, Cursor: "20"},
		"/v1/events?since=2026-11-22T10:00:00Z":          {Since: testTime},
		"/v1/events?kind=evict,register,evict":           {Kinds: []api.EventKind{api.EventEvict, api.EventRegister}},
		"/v1/events?subject=shop/orders&follow=true":     {Subject: "shop/orders"},
		"/v1/events?follow=false&subject=orders/o%3A1.x": {Subject: "orders/o:1.x"},
	} {
		w := raw{"GET", target, "", ""}.do(t, h)
		if w.Code != 200 || !reflect.DeepEqual(f.last, want) {
			t.Errorf("%s: %d, asked for %+v, want %+v", target, w.Code, f.last, want)
		}
	}
	// The id that a browser saw last is newer than the URL.
	raw{"GET", "/v1/events?follow=true&since=30m", "Last-Event-ID: 12", ""}.do(t, h)
	if want := (events.Query{After: 12, HasAfter: true}); !reflect.DeepEqual(f.last, want) {
		t.Errorf("%+v", f.last)
	}
	raw{"GET", "/v1/events?since=30m", "", ""}.do(t, h)
	if ago := time.Since(f.last.(events.Query).Since); ago < 30*time.Minute || ago > 31*time.Minute {
		t.Errorf("since %s ago", ago)
	}
}

// A stream of events is framed to the letter; what can be resumed from has its id.
func TestEventsOnTheWire(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	w := raw{"GET", "/v1/events?follow=true", "", ""}.do(t, h)
	want := "retry: 1000\n\n" +
		"event: gap\ndata: {\"after\":3,\"next\":7}\n\n" +
		"id: 7\nevent: event\ndata: " + `{"id":7,"time":"2026-11-22T10:00:00Z","region":"us-east","node":"n1","kind":"evict","subject":"orders/o-1","cause":{"kind":"a<b","ref":5},"detail":"a\nb"}` + "\n\n" +
		"id: 9\nevent: bookmark\ndata: {\"last\":9}\n\n"
	if got := w.Body.String(); got != want || w.Header().Get("Content-Type") != eventStream || w.Header().Get(api.HeaderRegion) != "us-east" {
		t.Errorf("%v\n%s\nwant\n%s", w.Header(), got, want)
	}
	page := raw{"GET", "/v1/events", "", ""}.do(t, h)
	if got := page.Body.String(); got != `{"region":"us-east","node":"n1","events":[],"first":1,"last":9,"durable":false}`+"\n" {
		t.Error(got)
	}
}

// Over the real registry and log: what a client does is told with its address; an old token
// neither reads nor follows (P12).
func TestEventsOfTheRealRegistry(t *testing.T) {
	l, err := events.Open(events.Config{Dir: t.TempDir(), Region: "us-east", Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := memstore.New("us-east")
	if err != nil {
		t.Fatal(err)
	}
	serving := func(access registry.Authorizer) (door http.Handler, stop func()) {
		r, err := registry.New(registry.Config{Region: "us-east", Node: "n1", Store: s, Events: l, Authorizer: access})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		<-r.Loaded()
		if door, err = New(Config{Registry: r, Region: "us-east", Node: "n1"}); err != nil {
			t.Fatal(err)
		}
		return door, func() { cancel(); <-ended }
	}
	door, stop := serving(registry.TokenAccess([32]byte{}))
	for _, target := range []string{"/v1/events", "/v1/events?follow=true"} {
		if w := (raw{"GET", target, "Authorization: Bearer secret-token", ""}).do(t, door); w.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
	stop()
	door, stop = serving(nil)
	defer stop()
	const inst = "/v1/services/orders/instances/o-1"
	body := `{"address":"10.0.0.1","port":80,"metadata":{"password":"hunter2"}}`
	for _, q := range []raw{
		{"PUT", inst, "Content-Type: application/json\nAuthorization: Bearer secret-token", body},
		{"PUT", inst + "/heartbeat", "", ""},
		{"PUT", inst + "/drain", "Content-Type: application/json", `{"note":"deploy"}`},
		{"DELETE", inst, "", ""},
	} {
		if w := q.do(t, door); w.Code >= 300 {
			t.Fatalf("%s %s: %d %s", q.method, q.target, w.Code, w.Body)
		}
	}
	l.Sync()
	w := raw{"GET", "/v1/events?since=0&kind=register,drain,deregister&subject=orders", "", ""}.do(t, door)
	var list api.EventList
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list.Events {
		got = append(got, string(e.Kind)+" "+e.Cause.Kind+" "+e.Actor)
	}
	// A request made by hand has no address.
	if want := []string{"register request client", "drain request client", "deregister drained client"}; !slices.Equal(got, want) {
		t.Errorf("%q in %s", got, w.Body)
	}
	for _, secret := range []string{"secret-token", "hunter2"} {
		if slices.ContainsFunc(list.Events, func(e api.Event) bool { b, _ := json.Marshal(e); return strings.Contains(string(b), secret) }) {
			t.Errorf("%s is told", secret)
		}
	}
}
