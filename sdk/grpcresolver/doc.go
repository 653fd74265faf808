// Package grpcresolver lets gRPC channels call services by name, nearest instance first, as
// [nearside.Client] does it for HTTP. It is a module of its own, so that the SDK needs no gRPC.
//
//	client, err := nearside.New(nearside.Config{Addresses: []string{"http://127.0.0.1:7400"}})
//	…
//	defer client.Close()
//
//	conn, err := grpc.NewClient("nearside:///orders", append(
//		grpcresolver.DialOptions(client, grpcresolver.WithRetry("shop.Orders/Get", "shop.Orders/List")),
//		grpc.WithTransportCredentials(insecure.NewCredentials()),
//	)...)
//	…
//	defer conn.Close() // before the client
//
//	orders := shop.NewOrdersClient(conn)
//	reply, err := orders.Get(ctx, &shop.GetRequest{Id: 7})
//
// "nearside:///orders.shop" names the service of another namespace than the client's. A server
// registers like any other, with [nearside.Client.Register]; where gRPC has a port of its own,
// it is the port named "grpc".
//
// # Which instance
//
// Each call goes where [nearside.Client.Pick] would send it: the same tiers, shares, drains,
// policies and breakers, and the same memory of who failed, shared with everything else that
// uses the client. Only instances with a connection take part. There are connections to the
// instances of the tiers that take traffic (at most 128; see [WithMaxConns]), two more to the
// next region (see [WithWarm]), and for a minute those to where traffic has left.
//
// The end of each call is told to the breaker of its instance. UNAVAILABLE counts as a failure,
// and so does DEADLINE_EXCEEDED if nothing came back; every other code is an answer, and
// CANCELLED says nothing. So give calls deadlines: a hung server shows itself by nothing else.
// After three such calls it is left alone, and when a region's are, calls go to the next
// region. An instance that cannot be connected to (refused, or no HTTP/2 within two seconds)
// is left alone at once, and dialed by the client until it listens.
//
// # Waiting and failing
//
// Until the first connection is there calls wait, as gRPC calls do, at most two seconds for
// each tier; after half a second the next tier is connected to as well. With nothing left they
// fail with UNAVAILABLE and a text that says why: no registry answers, nobody knows the
// service, or the last error of a connection. Calls that wait for ready go on waiting.
//
// Calls that no server has seen are repeated by gRPC itself. Of the others those are that
// [WithRetry] declares.
//
// # Traces
//
// Spans are made by gRPC's own instrumentation (otelgrpc, or google.golang.org/grpc/stats/opentelemetry).
// The span in a call's context, unless it is a server's, is told where the call goes and why:
// nearside.service, nearside.decision.id, nearside.region, nearside.zone, nearside.instance,
// nearside.tier, and for methods of [WithRetry] nearside.attempt. There are no metrics of its own.
//
// # Servers
//
// Stop a server by closing its registration first, which drains it, and then with
// GracefulStop: no call fails. TLS certificates are checked against the service's name as the
// target has it, "orders" or "orders.shop"; grpc.WithAuthority changes that. A health service
// is the registry's to check (api.CheckGRPC); a healthCheckConfig in [WithServiceConfig] makes
// each channel check by itself too, if the program imports google.golang.org/grpc/health.
//
// # What is global
//
// gRPC finds balancers by name in a table of the process: the package's init registers
// "nearside" there, without any state. The resolver is not registered; a channel gets it by
// [DialOptions] or [NewBuilder], and with it its client. Programs that use two clients give
// each channel the one it is for.
package grpcresolver
