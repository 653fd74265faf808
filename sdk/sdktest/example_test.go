package sdktest_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/sdktest"
)

// greet is the code under test: it calls a service by name.
func greet(web *http.Client) string {
	resp, err := web.Get("http://greetings/")
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(resp.Body)
	return string(b) + " from " + resp.Header.Get("Nearside-Served-Region")
}

func says(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) })
}

// In a test the first argument is its *testing.T, and the world ends with the test.
func ExampleNewWorld() {
	world := sdktest.NewWorld(nil, "eu-west", "us-east")
	defer world.Close()
	near := world.Region("eu-west").Serve("greetings", says("moin"))
	world.Region("us-east").Serve("greetings", says("howdy"))

	web := &http.Client{Transport: world.Region("eu-west").Client().Transport(nil)}
	fmt.Println(greet(web))
	near.Kill()
	fmt.Println(greet(web))
	world.Region("eu-west").Kill() // and now the registry
	fmt.Println(greet(web))
	// Output:
	// moin from eu-west
	// howdy from us-east
	// howdy from us-east
}

// A test of minutes in no time: in a bubble of testing/synctest the clock jumps when all wait.
func ExampleNewMemoryWorld() {
	test := func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			world := sdktest.NewMemoryWorld(t, "eu-west", "us-east")
			near := world.Region("eu-west").Serve("greetings", says("moin"))
			world.Region("us-east").Serve("greetings", says("howdy"))
			web := &http.Client{Transport: world.Region("eu-west").Client().Transport(world.Transport())}
			near.Kill()
			if got := greet(web); got != "howdy from us-east" {
				t.Error(got)
			}
			near.Heal()
			time.Sleep(time.Minute) // the breaker, and the way back
			if got := greet(web); got != "moin from eu-west" {
				t.Error(got)
			}
		})
	}
	_ = test
}

// The example above as a test.
func TestExampleNewMemoryWorld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := sdktest.NewMemoryWorld(t, "eu-west", "us-east")
		near := world.Region("eu-west").Serve("greetings", says("moin"))
		world.Region("us-east").Serve("greetings", says("howdy"))
		web := &http.Client{Transport: world.Region("eu-west").Client().Transport(world.Transport())}
		near.Kill()
		if got := greet(web); got != "howdy from us-east" {
			t.Error(got)
		}
		near.Heal()
		time.Sleep(time.Minute)
		if got := greet(web); got != "moin from eu-west" {
			t.Error(got)
		}
	})
}
