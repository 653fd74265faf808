package regions

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// sameRows returns nil if what every region shows of every other one's service is what that one has
// itself, of what can be used: ids, addresses and statuses.
func (w *world) sameRows(service string) error {
	type shown struct {
		address string
		port    int
		status  api.Status
	}
	list := func(at api.Region, query string) (map[api.InstanceID]shown, error) {
		var l api.InstanceList
		status, err := w.clients[at].Do(http.MethodGet, api.PathInstances(api.ServiceName(service))+query, nil, &l)
		if err != nil && status != http.StatusNotFound { // which is none
			return nil, fmt.Errorf("%s asked for %s%s: %w", at, service, query, err)
		}
		out := map[api.InstanceID]shown{}
		for _, i := range l.Instances {
			if i.Status == api.StatusCritical {
				continue // a summary leaves them out, as long as there are others
			}
			out[i.ID] = shown{i.Address, i.Port, i.Status}
		}
		return out, nil
	}
	for _, origin := range w.regions {
		own, err := list(origin, "")
		if err != nil {
			return err
		}
		for _, reader := range w.regions {
			if reader == origin {
				continue
			}
			there, err := list(reader, "?region="+string(origin))
			if err != nil {
				return err
			}
			if len(there) != len(own) {
				return fmt.Errorf("%s has %d instances of %s, %s shows %d", origin, len(own), service, reader, len(there))
			}
			for id, i := range own {
				if there[id] != i {
					return fmt.Errorf("%s/%s of %s is %+v, %s shows %+v", service, id, origin, i, reader, there[id])
				}
			}
		}
	}
	return nil
}

// P1, P4, P6, P7, test 25 and catalogue row 54: one of three regions runs the oldest program that
// speaks the peer protocol, built from git. Rows and digests of all pairs become equal in both directions, over
// changes, over restarts of either and over the upgrade; and a row with fields that
// neither knows is kept whole, in memory and on disk, by the old program and by the new.
func TestMixedVersion(t *testing.T) {
	t.Parallel() // it waits more than it works
	old := cluster.Oldest(t)
	if old.Took > 0 {
		t.Logf("commit %s was built in %s", old.Commit[:12], old.Took.Round(time.Millisecond))
	} else {
		t.Logf("commit %s was built before", old.Commit[:12])
	}
	w := newWorld(t, us, eu, ap)
	w.Node(eu).Use(old.Path)
	future := newFuture(t)
	for _, r := range []api.Region{us, eu} {
		w.Node(r).Extra = []string{"--peer", "tomorrow=" + future.URL}
	}
	w.StartAll()
	passed := 0
	agree := func(what string) {
		t.Helper()
		took := w.awaitAgreement(what)
		cluster.Within(t, patience, "the same rows everywhere "+what, func() error { return w.sameRows("orders") })
		t.Logf("equal digests of all pairs and the same rows %s: after %s", what, took.Round(time.Millisecond))
		passed++
	}
	for _, r := range w.regions {
		fill(t, w.clients[r], "orders", 8, func(i int, reg *api.Registration) {
			reg.Version, reg.Tags, reg.Metadata = "1.2", []string{"http"}, map[string]string{"i": fmt.Sprint(i)}
		})
		for i := range 30 {
			fill(t, w.clients[r], fmt.Sprintf("service-%d", i), 2, nil)
		}
	}
	agree("with one region of the old program")

	v := w.watchOver("orders")
	for _, r := range w.regions {
		for i := range 3 {
			id := api.InstanceID(fmt.Sprintf("orders-%d", i))
			eventually(t, "an instance is critical", func() error {
				_, err := w.clients[r].Do(http.MethodPut, api.PathInstance("orders", id)+"/status", api.StatusChange{Status: api.StatusCritical}, nil)
				return err
			})
		}
		if _, err := w.clients[r].Do(http.MethodDelete, api.PathInstance("orders", "orders-7"), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	agree("after changes in all of them")

	// A row of the future: known fields are used, and the digest, which counts the others too, holds.
	tomorrow := func(r api.Region) (l api.LinkInfo, err error) {
		info, err := w.federation(r)
		if err != nil {
			return l, err
		}
		if l, err = link(info, "tomorrow"); err != nil {
			return l, err
		}
		if want := future.shown(); l.Digest != want {
			return l, fmt.Errorf("%s holds digest %s of tomorrow, want %s (%s, %s)", r, l.Digest, want, l.State, l.LastError)
		}
		return l, nil
	}
	for _, r := range []api.Region{us, eu} {
		cluster.Within(t, patience, "rows of the future are held", func() error {
			l, err := tomorrow(r)
			if err == nil && (l.State != "connected" || l.Replica.State != api.AgeFresh) {
				err = fmt.Errorf("the link of %s is %s, %s: %s", r, l.State, l.Replica.State, l.LastError)
			}
			return err
		})
	}
	pass(3 * time.Second) // replicas are on disk
	future.CloseClientConnections()
	future.Listener.Close()

	restart := func(r api.Region, binary string) {
		t.Helper()
		v.down(r)
		w.Node(r).Kill()
		w.Node(r).Use(binary)
		w.Node(r).Start()
		v.up(r)
	}
	restart(eu, old.Path)
	agree("after a restart of the old one")
	restart(us, "")
	agree("after a restart of a new one")
	for _, r := range []api.Region{us, eu} {
		if _, err := tomorrow(r); err != nil {
			t.Errorf("unknown fields are kept over a restart: %v", err)
		}
	}
	restart(eu, "")
	agree("after the upgrade of the old one")
	if _, err := tomorrow(eu); err != nil {
		t.Errorf("unknown fields are kept over the upgrade: %v", err)
	}
	l, err := w.clients[eu].Instances("orders")
	if err != nil || len(l.Instances) != 7 || !slices.ContainsFunc(l.Instances, func(i api.Instance) bool { return i.Metadata["i"] == "6" }) {
		t.Errorf("P1: after the upgrade eu-west has %+v, %v", l.Instances, err)
	}
	v.verdict()
	t.Logf("matrix passed: %d of %d", passed, 5)
}
