// Package nearside is the client of Nearside: it registers a program, finds the services
// it calls, and goes on finding them when registries, links or whole regions are gone.
//
//	client, err := nearside.New(nearside.Config{Addresses: []string{"http://127.0.0.1:7400"}})
//	…
//	defer client.Close()
//
//	reg, err := client.Register(ctx, nearside.Registration{Service: "orders", Address: "10.0.0.7", Port: 8080})
//	…
//	defer reg.Close(ctx)
//
//	web := &http.Client{Transport: client.Transport(nil)}
//	resp, err := web.Get("http://payments/v1/charges")
//
// # What it promises
//
// The first use of a service asks the registry and waits for at most two seconds. From
// then on the client holds a watch, and every [Client.Pick], [Client.Resolve] and call
// through [Client.Transport] is answered from memory: the registry is not on the way of
// a call. When the home registry does not answer, nothing is removed; the client asks the
// other regions' registries, whose addresses it has learned, and returns home when home
// is back. With Config.SnapshotDir it also starts without any registry, from what it knew
// when it last ran.
//
// Which instances a call may go to, and in which order, is decided by package route, the
// same code that the registry runs: the caller's zone, then its region, then the other
// regions. Instances that fail the caller's own calls are left out by a circuit breaker
// and tried again now and then. Calls that are safe to repeat are repeated on the next
// instance, and then in the next region; see [Client.Transport].
//
// # What it does not do
//
// It has no state outside a [Client], no goroutine left after [Client.Close], and uses no
// global of OpenTelemetry: give it the providers. It never registers in another region
// than home.
package nearside
