// Package sdktest runs regions of Nearside inside a test: registries that a program's own
// client registers with, resolves from and watches, with switches for what goes wrong.
// Nothing is installed or started beside the test, and no etcd takes part.
//
//	func TestCheckout(t *testing.T) {
//		region := sdktest.NewRegion(t, "eu-west")
//		payments := region.Serve("payments", http.HandlerFunc(fakePayments))
//
//		shop := checkout.New(region.Client()) // the code under test
//		…
//		payments.Kill()   // connections are refused
//		payments.Hang()   // connections are accepted, and nothing is ever answered
//		payments.Heal()
//		region.Kill()     // the registry, not the service
//	}
//
// [NewRegion] is one region, [NewWorld] several that hear of each other's services, as
// federated regions do. Both listen on loopback addresses and end with the test.
// [NewMemoryWorld] uses a network inside the process: it also works in a bubble of
// testing/synctest, where minutes of failure pass at once; see [World.Transport].
//
// # What is real
//
// A region answers the part of HTTP v1 that a client uses, by the rules of the real one:
// registering, heartbeats, status, drain and deregistering (fields are checked by the same
// code, a lower incarnation is refused with 409), services, instances, loads, resolve and explain (the same
// decision), the watch (items, synced, changes, bookmarks, resuming, resets), regions, the
// drain of a region, and policies. What it refuses, it refuses as a problem document with the
// code of the real registry. A test of the project tells both the same story and compares the answers.
//
// # What is not
//
//   - Records are kept in memory. [Region.Kill] and [Region.Heal] keep them, as a restart of
//     a real registry does; [Region.Wipe] loses them.
//   - Health checks are kept, and nobody runs them: an instance with checks is what it says it is.
//   - Instances whose heartbeats stop are told as overdue, but stay until
//     [Region.EvictOverdue] is on. Then they go one by one, without the eviction brake.
//   - Loads of heartbeats are summed up and told at once, where a region takes five seconds and more. A program's
//     own client begins to spill slowly all the same; Resolve and Explain of a region do not, as they
//     remember nothing.
//   - Links between regions are instant. The round-trip times that regions tell are
//     [World.SetDistance]'s; calls are not slowed down by them.
//   - A drain of a region takes effect at once, by the whole percentage. Schedules and steps are refused.
//   - There are no batches, filters, pages, keys, events, members and other doors, and no tokens.
//     A path that is not there is answered with 404, a parameter with 422 and the code unsupported.
//
// # Time
//
// Nothing here waits for a time to pass, except what is asked to: [Region.Delay], bookmarks
// (five seconds) and time-outs of heartbeats. To wait for something that a program does in
// its own goroutines use [Region.Await], not a sleep.
//
// # Mistakes
//
// A mistake of the test, such as a service name that is none, ends the test with Fatalf, so the
// methods are to be called from the test's own goroutine; all are safe for concurrent use
// besides. Without a test (t is nil: examples, small demonstrations) it is a panic, and
// [World.Close] ends what was started.
package sdktest
