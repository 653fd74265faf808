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
}

// Client returns a plain HTTP client of the node.
func (n *Node) Client() *HTTP {
	tr := &http.Transport{MaxIdleConnsPerHost: 64}
	n.c.t.Cleanup(tr.CloseIdleConnections)
	return &HTTP{t: n.c.t, Base: n.URL(), c: &http.Client{Timeout: 10 * time.Second, Transport: tr}}
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
