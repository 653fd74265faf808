package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// HTTP calls the pinned API the way an outsider does: plain requests, no SDK.
type HTTP struct {
	t    testing.TB
	Base string
	c    *http.Client
	n    *Node
}

// Client returns a plain HTTP client of the node.
func (n *Node) Client() *HTTP {
	tr := n.Transport()
	n.c.t.Cleanup(tr.CloseIdleConnections)
	return &HTTP{t: n.c.t, Base: n.URL(), n: n, c: &http.Client{Timeout: 10 * time.Second, Transport: tr}}
}

// Do sends one request with a JSON body (nil = none), decodes a 2xx answer into out (nil =
// drop it) and returns the status. A refusal is returned as *api.Error.
func (h *HTTP) Do(method, path string, body, out any) (int, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, h.Base+path, r)
	if err != nil {
		return 0, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if method == http.MethodPut {
		// Safe to repeat: a connection may be closed in the moment it is taken from the pool (one that was
		// opened in vain is after 5 s). Without a value the header is not sent.
		req.Header["Idempotency-Key"] = nil
	}
	if token := h.n.token(); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := h.c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err
	}
	if resp.StatusCode >= 300 {
		var p api.Problem
		if err := json.Unmarshal(b, &p); err != nil {
			return resp.StatusCode, fmt.Errorf("status %d without a problem document: %.200s", resp.StatusCode, b)
		}
		return resp.StatusCode, p.Err()
	}
	if out != nil {
		return resp.StatusCode, json.Unmarshal(b, out)
	}
	return resp.StatusCode, nil
}

// Register registers one instance and fails the test unless it is acknowledged.
func (h *HTTP) Register(service, id string, reg api.Registration) {
	h.t.Helper()
	if _, err := h.Do(http.MethodPut, api.PathInstance(api.ServiceName(service), api.InstanceID(id)), reg, nil); err != nil {
		h.t.Fatalf("register %s/%s: %v", service, id, err)
	}
}

// Instances lists a service's instances.
func (h *HTTP) Instances(service string) (api.InstanceList, error) {
	var l api.InstanceList
	_, err := h.Do(http.MethodGet, api.PathInstances(api.ServiceName(service)), nil, &l)
	return l, err
}

// Resolve resolves a service.
func (h *HTTP) Resolve(service string) (api.Resolution, error) {
	var r api.Resolution
	_, err := h.Do(http.MethodGet, api.PathResolve(api.ServiceName(service)), nil, &r)
	return r, err
}

// Get returns the body of an answer that is not JSON.
func (h *HTTP) Get(path string) ([]byte, error) {
	resp, err := h.c.Get(h.Base + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("status %d: %.200s", resp.StatusCode, b)
	}
	return b, err
}

// Resolvable returns how many endpoints the service has, the unwell left out or not as the
// node decides; an answer without any is an error.
func (h *HTTP) Resolvable(service string) (int, error) {
	r, err := h.Resolve(service)
	if err == nil && len(r.Endpoints) == 0 {
		err = fmt.Errorf("P3: resolve of %s is empty: %+v", service, r.Decision)
	}
	return len(r.Endpoints), err
}

// Region returns a region as GET /v1/regions/{region} shows it.
func (h *HTTP) Region(r api.Region) (api.RegionInfo, error) {
	var info api.RegionInfo
	_, err := h.Do(http.MethodGet, api.PathRegions+"/"+string(r), nil, &info)
	return info, err
}

// Events returns the node's events of some kinds, oldest first.
func (h *HTTP) Events(kinds ...api.EventKind) ([]api.Event, error) {
	path := api.PathEvents + "?limit=1000"
	for i, k := range kinds {
		path += map[bool]string{true: "&kind=", false: ","}[i == 0] + string(k)
	}
	var l api.EventList
	_, err := h.Do(http.MethodGet, path, nil, &l)
	return l.Events, err
}

// Readiness returns what /readyz says, ready or not.
func (h *HTTP) Readiness() (api.Readiness, error) {
	var r api.Readiness
	resp, err := h.c.Get(h.Base + api.PathReadyz)
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	return r, json.NewDecoder(resp.Body).Decode(&r)
}

// Close ends the client's idle connections, ahead of the test's end.
func (h *HTTP) Close() { h.c.CloseIdleConnections() }
