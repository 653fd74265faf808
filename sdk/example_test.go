package nearside_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
	"github.com/nearside/nearside/sdk/sdktest"
)

// The examples run against regions of package sdktest. In a program Config.Addresses names nodes
// of its own region.

// text is a service that answers with its text, and the path it was asked for.
func text(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s: %s", s, r.URL.Path) })
}

// A client is made once, of the addresses of its home region's registry. It does not wait for the
// network: an error means that the configuration is wrong.
func ExampleNew() {
	// What is known outlives the program in a directory of its own, that nobody else can write
	// to: /var/lib/shop, say. Where others can, the key says which files are the program's; it is
	// a secret that is the same at the next start.
	dir, err := os.MkdirTemp("", "shop")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // in a program: read where it keeps its secrets

	client, err := nearside.New(nearside.Config{
		Addresses:   []string{"http://127.0.0.1:7400", "http://127.0.0.1:7401"},
		Region:      "us-east",
		Zone:        "us-east-1",
		App:         "shop",
		SnapshotDir: dir,
		SnapshotKey: key,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	fmt.Println("at home in", client.Home())

	_, err = nearside.New(nearside.Config{Addresses: []string{"127.0.0.1:7400"}})
	fmt.Println(err)
	// Output:
	// at home in us-east
	// nearside: address "127.0.0.1:7400" is not a base URL: write it like "http://10.0.0.1:7400"
}

// A program registers when it is ready to serve, and closes the registration before it
// stops: callers go elsewhere before the listener is gone.
func ExampleClient_Register() {
	world := sdktest.NewWorld(nil, "us-east")
	defer world.Close()
	client := world.Region("us-east").Client()

	self, err := client.Register(context.Background(), nearside.Registration{
		Service: "orders", ID: "orders-1", Address: "10.0.0.7", Port: 8080, Metadata: map[string]string{"build": "42"},
	})
	if err != nil {
		fmt.Println(err) // the registry refuses: a bad field, no permission
		return
	}
	fmt.Println(self.ID(), "acknowledged:", !self.Pending())

	_ = self.SetStatus(context.Background(), api.StatusWarning, "the disk is slow")
	for _, in := range world.Region("us-east").Instances("orders") {
		fmt.Println(in.ID, in.Status, in.StatusNote, in.Metadata)
	}
	if err := self.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	fmt.Println("left:", len(world.Region("us-east").Instances("orders")))
	// Output:
	// orders-1 acknowledged: true
	// orders-1 warning the disk is slow map[build:42]
	// left: 0
}

// A program that says how busy it is gets fewer calls before it fails: beyond 80 % a part of its
// region's calls goes to another one that has something to spare.
func ExampleRegistration_load() {
	world := sdktest.NewWorld(nil, "us-east", "eu-west")
	defer world.Close()
	world.Region("eu-west").Register(nearside.Registration{Service: "orders", Address: "10.1.0.7", Port: 8080})
	client := world.Region("us-east").Client()

	var running atomic.Int64 // requests, counted by the program's handler
	running.Store(60)
	const most = 50 // that it can work on at a time
	_, err := client.Register(context.Background(), nearside.Registration{
		Service: "orders", Address: "10.0.0.7", Port: 8080, TTL: time.Second,
		Load: func() int { return int(running.Load()) * 100 / most },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_ = client.Watch(ctx, "orders", func(res api.Resolution) {
		if res.Decision.Reason == api.ReasonSpill {
			fmt.Printf("us-east is used to %d %%, and eu-west helps\n", res.Loads["us-east"])
			cancel()
		}
	})
	// Output: us-east is used to 120 %, and eu-west helps
}

// A program calls other services by name. Nothing else changes in its code. The host is the
// name alone: one with a dot or a port is called as without the SDK.
func ExampleClient_Transport() {
	world := sdktest.NewWorld(nil, "us-east")
	defer world.Close()
	world.Region("us-east").Serve("orders", text("the orders of us-east"))
	client := world.Region("us-east").Client()

	web := &http.Client{Transport: client.Transport(nil), Timeout: 10 * time.Second}
	resp, err := web.Get("http://orders/v1/latest")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(string(body))
	fmt.Println("served by", resp.Header.Get(nearside.HeaderServedInstance), "in", resp.Header.Get(nearside.HeaderServedRegion))

	// The service of another namespace is named in full.
	world.Region("us-east").Serve("orders.shop", text("the orders of the shop"))
	other, err := web.Get("http://orders.shop.svc.nearside.internal/v1/latest")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = other.Body.Close() }()
	body, _ = io.ReadAll(other.Body)
	fmt.Println(string(body))
	// Output:
	// the orders of us-east: /v1/latest
	// served by orders-1 in us-east
	// the orders of the shop: /v1/latest
}

// Programs that speak something else than HTTP pick an endpoint and tell how it went.
func ExampleClient_Pick() {
	world := sdktest.NewWorld(nil, "us-east")
	defer world.Close()
	world.Region("us-east").Serve("orders", text("hello"))
	client := world.Region("us-east").Client()

	picked, err := client.Pick(context.Background(), "orders")
	if err != nil {
		fmt.Println(err)
		return
	}
	conn, err := net.Dial("tcp", picked.HostPort())
	picked.Done(err)
	if err == nil {
		fmt.Println("connected to", picked.Endpoint.ID)
		_ = conn.Close()
	}
	// Output: connected to orders-1
}

// Resolve says where calls go, and why.
func ExampleClient_Resolve() {
	world := sdktest.NewWorld(nil, "us-east", "eu-west")
	defer world.Close()
	world.Region("eu-west").Register(nearside.Registration{Service: "orders", ID: "orders-1", Address: "10.0.0.7", Port: 8080})
	client := world.Region("us-east").Client()

	res, err := client.Resolve(context.Background(), "orders")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(res.Decision.Reason, "so", res.Decision.Region, "serves")
	for _, e := range res.Endpoints {
		fmt.Println(e.ID, e.Address, e.Port)
	}
	// Output:
	// local_absent so eu-west serves
	// orders-1 10.0.0.7 8080
}

// Explain adds how the decision came about: how many instances were left after each step, and
// what would change it.
func ExampleClient_Explain() {
	world := sdktest.NewWorld(nil, "us-east")
	defer world.Close()
	region := world.Region("us-east")
	region.Register(nearside.Registration{Service: "orders", ID: "orders-1", Address: "10.0.0.7", Port: 8080})
	region.Register(nearside.Registration{Service: "orders", ID: "orders-2", Address: "10.0.0.8", Port: 8080}).SetStatus(api.StatusDraining, "deploy")

	ex, err := region.Client().Explain(context.Background(), "orders")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("from", ex.From, "-", ex.Decision.Reason)
	for _, step := range ex.Trace.Steps {
		for _, gone := range step.Dropped {
			fmt.Printf("%s left at step %s\n", gone.ID, step.Step)
		}
	}
	// Output:
	// from us-east - same_region
	// orders-2 left at step status
}

// Watch tells every change of the answer, for programs that keep connections or configure something else.
func ExampleClient_Watch() {
	world := sdktest.NewWorld(nil, "us-east")
	defer world.Close()
	region := world.Region("us-east")
	first := region.Register(nearside.Registration{Service: "orders", Address: "10.0.0.7", Port: 8080})
	client := region.Client()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := client.Watch(ctx, "orders", func(res api.Resolution) {
		switch len(res.Endpoints) {
		case 1:
			fmt.Println("calls go to", res.Endpoints[0].ID)
			first.Deregister()
		case 0:
			fmt.Println("nobody is left:", res.Decision.Reason)
			cancel()
		}
	})
	fmt.Println(errors.Is(err, context.Canceled))
	// Output:
	// calls go to orders-1
	// nobody is left: service_not_found
	// true
}

// A program may be stricter than its region: here no call leaves two regions, whatever fails.
func ExampleConfig_policy() {
	world := sdktest.NewWorld(nil, "eu-west", "eu-south", "us-east")
	defer world.Close()
	world.Region("us-east").Register(nearside.Registration{Service: "patients", Address: "10.1.0.7", Port: 8080})

	cfg := world.Region("eu-west").Config()
	cfg.Policy = route.Policy{Allowed: []api.Region{"eu-west", "eu-south"}}
	client, err := nearside.New(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()

	_, err = client.Pick(context.Background(), "patients")
	fmt.Println(errors.Is(err, nearside.ErrNoInstances))
	world.Region("eu-south").Register(nearside.Registration{Service: "patients", Address: "10.2.0.7", Port: 8080})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = client.Watch(ctx, "patients", func(res api.Resolution) {
		if len(res.Endpoints) > 0 {
			fmt.Println("served by", res.Decision.Region)
			cancel()
		}
	})
	// Output:
	// true
	// served by eu-south
}

// With a snapshot a program starts although every registry is dead, from what it knew when it last ran.
func ExampleConfig_snapshot() {
	dir, err := os.MkdirTemp("", "nearside")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	world := sdktest.NewWorld(nil, "us-east")
	defer world.Close()
	world.Region("us-east").Serve("orders", text("hello"))
	cfg := world.Region("us-east").Config()
	cfg.SnapshotDir, cfg.App = dir, "shop"

	run := func(name string) {
		client, err := nearside.New(cfg)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer func() { _ = client.Close() }()
		p, err := client.Pick(context.Background(), "orders")
		if err != nil {
			fmt.Println(name, err)
			return
		}
		p.Done(nil)
		fmt.Println(name, "calls", p.Endpoint.ID)
	}
	run("first run")
	world.Region("us-east").Kill()
	run("second run")
	// Output:
	// first run calls orders-1
	// second run calls orders-1
}

// What went wrong is in the error: an answer of the registry, nothing to call, or no answer at all.
func Example_errors() {
	world := sdktest.NewWorld(nil, "us-east")
	defer world.Close()
	region := world.Region("us-east")
	client := region.Client()
	explain := func(err error) {
		var refused *api.Error
		switch {
		case err == nil:
			fmt.Println("fine")
		case errors.As(err, &refused) && refused.Code == api.CodeServiceNotFound:
			fmt.Println("nobody ever registered it: is the name right?")
		case errors.As(err, &refused):
			fmt.Println("refused:", refused.Code, "field", refused.Field)
		case errors.Is(err, nearside.ErrNoInstances):
			fmt.Println("known, but there is nothing to call")
		case errors.Is(err, nearside.ErrUnreachable):
			fmt.Println("no registry answers, and no snapshot knows it: try again later")
		default:
			fmt.Println(err)
		}
	}
	_, err := client.Pick(context.Background(), "orderz")
	explain(err)
	_, err = client.Register(context.Background(), nearside.Registration{Service: "orders", Address: "http://10.0.0.7", Port: 8080})
	explain(err)

	// Calls: a *CallError says where the last attempt went.
	region.Serve("orders", text("hello")).Kill()
	web := &http.Client{Transport: client.Transport(nil)}
	_, err = web.Get("http://orders/")
	var failed *nearside.CallError
	fmt.Println(errors.As(err, &failed) && failed.Instance == "orders-1")
	// Output:
	// nobody ever registered it: is the name right?
	// refused: invalid_field field address
	// true
}
