package node

import (
	"fmt"
	"testing"
	"time"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// P8: three programs that register by the SDK and are used to 120 % make a fourth one's calls go to
// another region, in part: real nodes pass on what the programs tell.
func TestProgramsThatAreBusySpillOverRealNodes(t *testing.T) {
	t.Parallel()
	a := startActual(t)
	client := func(r api.Region) *nearside.Client {
		t.Helper()
		c, err := nearside.New(nearside.Config{Addresses: []string{a.url(r)}, Region: r})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	offer := func(c *nearside.Client, id string, load func() int) {
		t.Helper()
		if _, err := c.Register(t.Context(), nearside.Registration{
			Service: "orders", ID: id, Address: "10.0.0.7", Port: 80, TTL: time.Second, DrainDelay: -1, Load: load,
		}); err != nil {
			t.Fatal(err)
		}
	}
	caller := client("eu-west")
	for i := range 3 {
		offer(client("eu-west"), fmt.Sprintf("near-%d", i), func() int { return 120 })
	}
	offer(client("us-east"), "far", nil)
	within(t, 60*time.Second, "calls go to us-east too", func() error {
		res, err := caller.Resolve(t.Context(), "orders")
		if err != nil {
			return err
		}
		served := map[api.Region]int{}
		for range 100 {
			p, err := caller.Pick(t.Context(), "orders")
			if err != nil {
				return err
			}
			served[p.Endpoint.Region]++
			p.Done(nil)
		}
		if res.Loads["eu-west"] != 120 || res.Decision.Reason != api.ReasonSpill || served["us-east"] == 0 || served["eu-west"] == 0 {
			return fmt.Errorf("loads %v, reason %s, picks %v", res.Loads, res.Decision.Reason, served)
		}
		return nil
	})
}
