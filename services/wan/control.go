package wan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/nearside/nearside/sdk/api"
)

// Info is a link as the control shows it.
type Info struct {
	Name    string  `json:"name"`
	Listen  string  `json:"listen"` // host:port
	Target  string  `json:"target,omitempty"`
	Profile Profile `json:"profile"`
	Stats   Stats   `json:"stats"`
}

// InfoList is the body of GET /links.
type InfoList struct {
	Links []Info `json:"links"`
}

// Named is a link with what people call it.
type Named struct {
	*Link
	Target string
}

const maxControlBody = 16 << 10

// Control returns a handler that shows and changes links:
//
//	GET  /links                    all of them, by name
//	GET  /links/{name}             one
//	PUT  /links/{name}             a Profile: what is left out is nothing; answers as GET
//	POST /links/{name}/cut         resets its connections
//	POST /links/{name}/half-open   closes the target's end of them, and tells the others nothing
//
// There are no tokens: it is for loopback, and refuses what a browser sends on behalf of a page.
// The map must not change any more.
func Control(links map[string]Named) http.Handler {
	mux := http.NewServeMux()
	show := func(name string) Info {
		l := links[name]
		return Info{Name: name, Listen: l.Addr(), Target: l.Target, Profile: l.Profile(), Stats: l.Stats()}
	}
	one := func(f func(w http.ResponseWriter, r *http.Request, name string) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			name := r.PathValue("name")
			err := fromAPage(r)
			if _, ok := links[name]; err == nil && !ok {
				known := slices.Sorted(maps.Keys(links))
				err = &api.Error{Code: api.CodeNotFound, Detail: "there is no link " + api.Quote(name), Remedy: "use one of " + strings.Join(known, ", ")}
			}
			if err == nil {
				err = f(w, r, name)
			}
			if err != nil {
				refuse(w, err)
				return
			}
			answer(w, show(name))
		}
	}
	mux.HandleFunc("GET /links", func(w http.ResponseWriter, r *http.Request) {
		if err := fromAPage(r); err != nil {
			refuse(w, err)
			return
		}
		list := InfoList{Links: []Info{}}
		for _, name := range slices.Sorted(maps.Keys(links)) {
			list.Links = append(list.Links, show(name))
		}
		answer(w, list)
	})
	mux.HandleFunc("GET /links/{name}", one(func(http.ResponseWriter, *http.Request, string) error { return nil }))
	mux.HandleFunc("PUT /links/{name}", one(func(w http.ResponseWriter, r *http.Request, name string) error {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControlBody))
		if err != nil {
			return &api.Error{Code: api.CodeBodyTooLarge, Detail: "the profile could not be read: " + err.Error()}
		}
		var p Profile
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&p); err != nil {
			return &api.Error{Code: api.CodeInvalidRequest, Detail: "not a profile: " + err.Error(), Remedy: `send one such as {"up":{"delay":"40ms"},"down":{"delay":"40ms","loss":0.01}}`}
		}
		if d.More() {
			return &api.Error{Code: api.CodeInvalidRequest, Detail: "something follows the profile", Remedy: "send one JSON document"}
		}
		return links[name].Set(p)
	}))
	mux.HandleFunc("POST /links/{name}/cut", one(func(_ http.ResponseWriter, _ *http.Request, name string) error {
		links[name].Cut()
		return nil
	}))
	mux.HandleFunc("POST /links/{name}/half-open", one(func(_ http.ResponseWriter, _ *http.Request, name string) error {
		links[name].HalfOpen()
		return nil
	}))
	return mux
}

// fromAPage refuses requests that a page in a browser caused, directly or by a name that leads here.
func fromAPage(r *http.Request) error {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	if r.Header.Get("Origin") != "" || !loopback(host) {
		return &api.Error{Code: api.CodeForbidden, Detail: "links are controlled from this machine, and not by pages", Remedy: "use curl with the loopback address"}
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func answer(w http.ResponseWriter, body any) {
	b, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // who asked may be gone
}

func refuse(w http.ResponseWriter, err error) {
	var e *api.Error
	if !errors.As(err, &e) {
		e = &api.Error{Code: api.CodeInternal, Detail: fmt.Sprint(err)}
	}
	p := e.Problem("")
	b, _ := json.Marshal(p) // strings and numbers only
	w.Header().Set("Content-Type", api.ProblemType)
	w.WriteHeader(p.Status)
	_, _ = w.Write(b)
}
