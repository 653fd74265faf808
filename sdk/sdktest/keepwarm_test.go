package sdktest_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/sdktest"
)

// Design section 7, "the far path is kept warm": where a policy says so two calls of a hundred go to the next
// region while nothing is wrong, by the registry's answer as by a program's calls; they need no repeat. Where
// none does, not one leaves home.
func TestFarPathIsKeptWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := sdktest.NewMemoryWorld(t, "eu-west", "us-east", "ap-south")
		world.SetDistance("eu-west", "us-east", 80e6)
		world.SetDistance("eu-west", "ap-south", 160e6)
		home := world.Region("eu-west")
		percent := 2.0
		home.SetPolicy("warm", api.Policy{KeepWarm: &percent})
		const calls = 1_000
		for _, c := range []struct {
			service string
			far     int
			reason  string
		}{{"warm", 20, "2 % keeps the way to us-east warm"}, {"cold", 0, "usable in the caller's region"}} {
			var served []*sdktest.Instance
			for _, r := range []api.Region{"eu-west", "us-east", "ap-south"} {
				served = append(served, world.Region(r).Serve(c.service, says(string(r))), world.Region(r).Serve(c.service, says(string(r))))
			}
			client := home.Client()
			web := &http.Client{Transport: client.Transport(world.Transport())}
			synctest.Wait() // the instances are known, here and there
			for range calls {
				resp, err := web.Get("http://" + c.service + "/")
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
			}
			for i, want := range []int{calls - c.far, c.far, 0} {
				got := served[2*i].Calls() + served[2*i+1].Calls()
				if got < want-1 || got > want+1 { // the turns begin anywhere
					t.Errorf("%s: %d of %d calls in %s, want %d", c.service, got, calls, served[2*i].Region().Name(), want)
				}
			}
			res, err := client.Resolve(context.Background(), c.service)
			if err != nil || !strings.Contains(res.Decision.Detail, c.reason) || res.Decision.Region != "eu-west" || res.Decision.Short {
				t.Errorf("%s: %v, %+v", c.service, err, res.Decision)
			}
		}
	})
}
