package scenarios

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// P12: programs that use the SDK in two namespaces, with the same service and the same instance
// id in both, register, resolve, pick, watch and leave without meeting each other; a name with
// the namespace behind a dot says which is meant.
func TestSDKNamespacesNeverMix(t *testing.T) {
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ports := map[api.Namespace]int{"default": 8001, "shop": 8002}
	clients, instances := map[api.Namespace]*nearside.Client{}, map[api.Namespace]*nearside.Registered{}
	for ns, port := range ports {
		client, err := nearside.New(nearside.Config{Addresses: []string{n.URL()}, Region: us, Namespace: ns})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		in, err := client.Register(ctx, nearside.Registration{Service: "orders", ID: "orders-1", Address: "127.0.0.1", Port: port, DrainDelay: -1})
		if err != nil || in.Pending() {
			t.Fatalf("%v, pending %v", err, in.Pending())
		}
		clients[ns], instances[ns] = client, in
	}
	sees := func(ns api.Namespace, name string, want int) func() error {
		return func() error {
			res, err := clients[ns].Resolve(ctx, name)
			if err != nil {
				return err
			}
			if len(res.Endpoints) != 1 || res.Endpoints[0].Port != want {
				return fmt.Errorf("resolved %+v", res.Endpoints)
			}
			p, err := clients[ns].Pick(ctx, name)
			if err != nil {
				return err
			}
			p.Done(nil)
			if p.Endpoint.Port != want {
				return fmt.Errorf("picked %+v", p.Endpoint)
			}
			return nil
		}
	}
	for ns, port := range ports {
		cluster.Within(t, 20*time.Second, string(ns)+" by plain name", sees(ns, "orders", port))
		for other, otherPort := range ports {
			cluster.Within(t, 20*time.Second, string(ns)+" asks for "+string(other), sees(ns, "orders."+string(other), otherPort))
		}
	}
	// A watch of one is told nothing of the other.
	told := make(chan int, 100)
	wctx, stop := context.WithCancel(ctx)
	watching := make(chan error, 1)
	go func() {
		watching <- clients["default"].Watch(wctx, "orders", func(r api.Resolution) {
			for _, e := range r.Endpoints {
				told <- e.Port
			}
		})
	}()
	if err := instances["shop"].SetStatus(ctx, api.StatusWarning, "only here"); err != nil {
		t.Fatal(err)
	}
	if err := instances["shop"].Close(ctx); err != nil {
		t.Fatal(err)
	}
	var gone api.Instance
	if _, err := n.Client().Do(http.MethodGet, api.PathInstance("orders", "orders-1")+"?ns=shop", nil, &gone); api.CodeOf(err) != api.CodeInstanceNotFound {
		t.Errorf("closing left %+v, %v", gone, err)
	}
	var stays api.Instance
	if _, err := n.Client().Do(http.MethodGet, api.PathInstance("orders", "orders-1"), nil, &stays); err != nil || stays.Port != 8001 || stays.Status != api.StatusPassing {
		t.Errorf("the other one is %+v, %v", stays, err)
	}
	if err := instances["default"].SetStatus(ctx, api.StatusWarning, "now this one"); err != nil {
		t.Fatal(err)
	}
	cluster.Within(t, 20*time.Second, "default by plain name", sees("default", "orders", 8001))
	stop()
	<-watching
	close(told)
	n1 := 0
	for port := range told {
		if n1++; port != 8001 {
			t.Errorf("the watch of default told of port %d", port)
		}
	}
	if n1 == 0 {
		t.Error("the watch told nothing: this test proves little")
	}
	if _, err := clients["default"].Resolve(ctx, "orders.Shop"); api.CodeOf(err) != api.CodeInvalidField {
		t.Errorf("a wrong namespace: %v", err)
	}
}
