// Package nearside is the client of Nearside: it registers a program, finds the services
// it calls, and goes on finding them when registries, links or whole regions are gone.
//
//	client, err := nearside.New(nearside.Config{Addresses: []string{"http://127.0.0.1:7400"}})
//	…
//	defer client.Close()
//
//	self, err := client.Register(ctx, nearside.Registration{Service: "orders", Address: "10.0.0.7", Port: 8080})
//	…
//	defer self.Close(ctx)
//
//	web := &http.Client{Transport: client.Transport(nil)}
//	resp, err := web.Get("http://payments/v1/charges")
//
// README.md beside this file has whole programs to start from.
//
// # Words
//
// A service is a name that people call, such as orders, in a namespace (default unless said
// otherwise; orders.shop is the service orders in the namespace shop). An instance is one running copy of it. A region
// has a registry of one or more nodes; the region whose nodes are in Config.Addresses is home.
// Regions tell each other of their services, so that home knows of all. A zone is a part of a region.
//
// # Registering
//
// [Client.Register] returns when the registry has acknowledged the instance, or, when none
// answers, after a second with Pending true, and goes on trying: a program needs no
// registry to start. A goroutine then sends a heartbeat three times per TTL (15 s), registers
// again when the registry lost the instance or its memory, and comes back as a new incarnation
// after the program was suspended. [Registered.Err] says what is wrong just now, and
// [Registered.Done] closes when it is over: closed by the program, or taken over by a newer
// process with the same id (ErrSuperseded).
//
// Register when the listener is open. On the way out close the registration first and the
// server after it: [Registered.Close] tells callers to go elsewhere (draining), waits for
// DrainDelay (500 ms) and deregisters. [Client.Close] does that for what was not closed.
// A program that still warms up registers with Starting and calls
// [Registered.SetStatus] with passing; [Registered.Update] changes metadata, weight and so on.
//
// [Registration.Load] is a function that says how much the program is used, in percent. Each
// heartbeat tells it, and callers spill by it before the instances fail; without it they go by
// how many instances are left.
//
// # Calling
//
// [Client.Transport] is an http.RoundTripper: the host of the URL is the service's name, as in
// http://orders/. With a namespace that is not the client's own it is
// http://orders.shop.svc.nearside.internal/, though [Client.Pick] and the rest take "orders.shop":
// http://orders.shop/ is a DNS name, and http://orders:8080/ names a port, so both are called as without
// the SDK. https://orders/ is the service over TLS; see [Config.ServiceTLS]. It
// picks an instance per attempt, repeats what is safe to repeat at the next instance and at last in the
// next region, within a budget, and tells its breakers. Give the http.Client or the request's
// context a time limit of its own: it is for all attempts together.
//
// [Client.Pick] is for everything else: one endpoint, and a function that must be told how it
// went, exactly once. Nothing is repeated by it. gRPC has sdk/grpcresolver, a module of its own.
//
// [Client.Resolve] returns all that a call would choose from, best first, with the reason, and
// how old the knowledge of each region is; [Client.Explain] adds the record of the decision,
// and [Client.Watch] tells each change of it.
//
// The first use of a service asks the registry, and waits for two seconds at most. From then on
// the client holds a watch, and all of these are answered from memory: the registry is
// not on the way of a call. All are safe for concurrent use.
//
// # Where calls go
//
// Package route decides, the same code that the registry runs: the caller's zone, then its
// region, then the other regions, nearest first. A region that lost more than two sevenths of its instances
// passes a part of the calls on, no more than the others can carry, as does one whose instances say that they
// are used to more than 80 %; what comes back does so over half a minute. A drained region is left by the part that was wished. While
// nothing is wrong no call leaves the region, unless a policy's keep_warm sends a few of a hundred to the next one, so that the way
// there, and what is cached at its end, is warm on the day it is needed. When nothing usable is known anywhere, all that is known and allowed
// shares the calls (Decision.Panic); when what is usable has not the room for all of them, the decision says so too (Short). The home
// region's policies (residency, order, thresholds) hold for all of its callers, and
// Config.Policy narrows them further.
//
// Among the instances of one tier (a zone, a region) Config.Balancer chooses, or that of the
// service in Config.Services: [RoundRobin] (the default) and [LeastRequest] by weight, [PeakEWMA] the
// quicker ones, [ConsistentHash] by the key that [WithKey] gives a call, or a program's own
// [Balancer]. New instances may start slowly (Config.SlowStart), a client of a great service may
// keep to a part of it (Config.Subset).
//
// Instances that fail the program's own calls are left out by a circuit breaker, and tried
// again after one to three seconds: a refused dial opens it, three failures in a row, half of ten
// and more, or silence of an instance that many calls wait for. Failures are 502, 503 and 504,
// broken connections and time-outs; other answers and cancelled contexts never count. Who
// fails clearly more calls than its neighbours, answers of 500 included, is left out for half a
// minute and more, never more than half of a tier; see Config.NoEjection. Slow answers open breakers
// only where Config.SlowCall is set, and Config.Hedge sends a second attempt after a call that
// waits for long; both are off unless asked for.
//
// # When things fail
//
// An instance dies: its calls move in the moment of the first refused dial. It hangs: a call
// that is safe to repeat waits for Config.AttemptTimeout at most, and goes to the next. The registry dies
// or hangs: nothing moves and nothing is forgotten; the client asks other nodes, then other regions'
// registries, and returns home when home is back. It comes back empty: what it does not
// have any more is kept for 30 s. A whole region dies: calls go to the next one. Every
// registry is dead when the program starts: it goes by the snapshot of its last run, if
// Config.SnapshotDir is set. A snapshot that is torn, bent or not ours is not used: the one before it is, or none;
// with Config.SnapshotKey it is signed, and believed from nobody else.
//
// Only a deregistration, or a registry's complete list, removes an instance; silence never does.
//
// # Errors
//
//	*api.Error, code service_not_found   no region has ever heard of it. Check the name; or it has not started yet: ask again
//	*api.Error, code invalid_field       a name or a value is not allowed: Field, Detail and Remedy say which and what to do
//	*api.Error, other codes              the registry refuses, such as unauthorized: a matter of the operator
//	ErrNoInstances                       the service is known, and nothing of it is left, or policies forbid where it is
//	ErrUnreachable                       no registry answers, and no snapshot knows it; the error ends with the cause. Ask again later; for the next second callers get it at once
//	ErrIncomplete                        nobody has it as far as is known, and not all regions were heard completely. Ask again
//	ErrNoneFits                          PickWhere only: there are instances, and none that the caller allows now
//	*CallError                           every attempt of a call through Transport failed; Unwrap gives the last one's error
//	ErrSuperseded                        a newer process has this id: stop
//	ErrClosed                            the client is closed
//
// An HTTP status is no error: an answer of 503 that could not be repeated is returned as it is.
//
// # Configuration
//
// [Config] needs Addresses alone. In production set Region (a start without any registry knows where
// home is), Zone, App and SnapshotDir (a directory that outlives the program; programs that
// share it need different App names), and Logger: a client that is not given one is silent. [Config] has the defaults, and what each
// value costs.
//
// # Testing
//
// Package sdktest runs regions inside a test, real enough for this client, that can be killed,
// hung, wiped, cut off and drained on command; also in a bubble of testing/synctest, where
// minutes take no time.
//
// # Telemetry
//
// Give Config a TracerProvider and a MeterProvider: nothing global is used. Each call is a span with a client span for each attempt, by the
// semantic conventions for HTTP, with the region, the tier and the id of the decision; and calls,
// attempts, breakers, watches and heartbeats are measured. The logger is told when calls go another
// way. A Pick is not counted: it must cost nothing. No secret and no text of an error is in any of
// them; TELEMETRY.md lists the names.
//
// # What it does not do
//
// It has no state outside a [Client], reads no environment, and leaves no goroutine after
// [Client.Close]. It never registers in another region than home, and never repeats a call
// that may have been done, unless the call says that it may be.
package nearside
