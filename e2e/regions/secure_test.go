package regions

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/sdk/api"
)

// P6, P10, P12: three regions in earnest, with certificates and tokens. A link is cut, and what
// changes meanwhile comes through the third region, signed by its origin. Then eu-west dies, and a region with a
// certificate of its own answers in its place: it is refused by name, reads nothing under eu-west's
// name, and changes nothing that is known of it. At last all agree again.
func TestRegionsWithCertificates(t *testing.T) {
	t.Parallel() // it waits more than it works
	cluster.Seedless(t)
	const mars = api.Region("mars")
	w := newWorld(t, us, eu, ap, mars)
	ca := w.Secure()
	for _, r := range w.regions {
		w.clients[r] = w.Node(r).Client()
	}
	w.regions = w.regions[:3] // mars is none of them
	for _, r := range w.regions {
		w.Node(r).Launch()
	}
	for _, r := range w.regions {
		w.Node(r).AwaitReady()
		fill(t, w.clients[r], "orders", 4, nil)
	}
	w.awaitAgreement("at the start")
	stranger := http.Client{Transport: w.Node(us).Transport()}
	defer stranger.CloseIdleConnections()
	if resp, err := stranger.Get(w.Node(us).URL() + api.PathInstances("orders")); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("P12: without a token the API answers %v, %v", resp, err)
	}

	w.links.Clog(us, eu)
	w.links.Clog(eu, us)
	cluster.Within(t, patience, "ap-south relays eu-west to us-east", func() error {
		info, err := w.federation(us)
		if err != nil {
			return err
		}
		if l, err := link(info, eu); err != nil || l.Via != ap {
			return fmt.Errorf("%v: %+v", err, l)
		}
		return nil
	})
	fill(t, w.clients[eu], "meanwhile", 3, nil)
	knows := func(service string, count int) {
		t.Helper()
		cluster.Within(t, patience, "us-east knows "+service+" of eu-west", func() error {
			var list api.InstanceList
			_, err := w.clients[us].Do(http.MethodGet, api.PathInstances(api.ServiceName(service))+"?region="+string(eu), nil, &list)
			if err == nil && len(list.Instances) != count {
				err = fmt.Errorf("%d of %d instances", len(list.Instances), count)
			}
			return err
		})
	}
	knows("meanwhile", 3)
	w.links.Unclog(us, eu)
	w.links.Unclog(eu, us)
	w.awaitAgreement("after the cut")

	// A region with a certificate of the same CA asks in another's name.
	tr := ca.Transport(mars)
	defer tr.CloseIdleConnections()
	for name, want := range map[api.Region]int{eu: http.StatusForbidden, us: http.StatusForbidden} {
		resp, err := (&http.Client{Transport: tr}).Get(fmt.Sprintf("https://%s%s?proto=1&max_proto=2&node=x&reader=%s&region=%s", w.Node(ap).Federation, peer.PathStream, name, ap))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("P12: mars reads as %s: status %d", name, resp.StatusCode)
		}
	}

	v := w.watchOver("orders")
	v.down(eu)
	w.Node(eu).Kill()
	impostor := w.Node(mars)
	impostor.Federation = w.Node(eu).Federation
	impostor.Start()
	fill(t, w.clients[mars], "orders", 1, nil)
	for _, r := range []api.Region{us, ap} {
		cluster.Within(t, patience, string(r)+" says whose certificate it met", func() error {
			info, err := w.federation(r)
			if err != nil {
				return err
			}
			l, err := link(info, eu)
			if err == nil && !strings.Contains(l.LastError, "certificate is that of region mars, not of eu-west") {
				err = fmt.Errorf("%s: %q", l.State, l.LastError)
			}
			return err
		})
	}
	knows("orders", 4)
	impostor.Kill()
	w.Node(eu).Start()
	v.up(eu)
	w.awaitAgreement("after the return")
	v.verdict()
}
