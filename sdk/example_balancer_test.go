package nearside_test

import (
	"context"
	"fmt"
	"sync/atomic"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/sdktest"
)

// canary sends one call in ten to instances of another version, and the rest to the others;
// among each of them calls go round robin.
type canary struct{ version string }

// Prepare is called for each tier of each new answer.
func (c canary) Prepare(t nearside.Candidates) nearside.Picker {
	var p canaryPicker
	for i, candidate := range t.List {
		n := 0
		if candidate.Endpoint.Version == c.version {
			n = 1
		}
		p.places[n] = append(p.places[n], i)
		p.parts[n].List = append(p.parts[n].List, candidate)
	}
	for n, part := range p.parts {
		if len(part.List) == 0 { // only one of the two runs here
			return nearside.RoundRobin.Prepare(t)
		}
		p.pickers[n] = nearside.RoundRobin.Prepare(part)
	}
	return &p
}

type canaryPicker struct {
	calls   atomic.Uint64
	places  [2][]int // in the tier, of the candidates of each part
	parts   [2]nearside.Candidates
	pickers [2]nearside.Picker
}

// Pick is called for each call. It takes no lock and allocates nothing.
func (p *canaryPicker) Pick(info nearside.PickInfo) int {
	n := 0
	if p.calls.Add(1)%10 == 0 {
		n = 1
	}
	return p.places[n][p.pickers[n].Pick(info)]
}

// Which instance of a tier a call goes to may be the program's own choice. Everything else
// stays as it is: which region serves, that broken instances are left out, and where
// calls are repeated.
func ExampleBalancer() {
	region := versions("v1", "v1", "v2")
	defer region.World().Close()
	client, err := nearside.New(nearside.Config{
		Addresses: []string{region.URL()},
		Services:  map[string]nearside.ServiceConfig{"orders": {Balancer: canary{version: "v2"}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()

	got := map[string]int{}
	for range 100 {
		picked, err := client.Pick(context.Background(), "orders")
		if err != nil {
			fmt.Println(err)
			return
		}
		got[picked.Endpoint.Version]++
		picked.Done(nil)
	}
	fmt.Println(got)
	// Output: map[v1:90 v2:10]
}

// Calls of one key stay with one instance, as long as it is there and not full: its cache is
// warm for them.
func ExampleWithKey() {
	region := versions("v1", "v1", "v1")
	defer region.World().Close()
	client, err := nearside.New(nearside.Config{
		Addresses: []string{region.URL()},
		Balancer:  nearside.ConsistentHash{},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()

	// The same with client.Transport: http.NewRequestWithContext(ctx, …).
	for _, user := range []string{"ann", "bob", "ann", "bob", "ann"} {
		ctx := nearside.WithKey(context.Background(), user)
		picked, err := client.Pick(ctx, "orders")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(user, "is served by", picked.Endpoint.ID)
		picked.Done(nil)
	}
	// Output:
	// ann is served by orders-3
	// bob is served by orders-1
	// ann is served by orders-3
	// bob is served by orders-1
	// ann is served by orders-3
}

// versions is a region with an instance of orders for each version.
func versions(versions ...string) *sdktest.Region {
	region := sdktest.NewRegion(nil, "us-east")
	for i, v := range versions {
		region.Register(nearside.Registration{Service: "orders", Address: fmt.Sprintf("10.0.0.%d", i+1), Port: 80, Version: v})
	}
	return region
}
