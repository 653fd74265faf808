// Package wan emulates the links between regions: a [Link] is a TCP relay in front of one
// address which delays, disturbs, limits or swallows what passes through it, each direction
// by itself, and all of it changeable while connections are open. It is for tests, benchmarks
// and the demo; the hidden command nearside wan runs links as a process of their own.
//
//	l, err := wan.Listen("127.0.0.1:0", "127.0.0.1:7402", wan.Both(wan.Direction{Delay: api.Duration(40 * time.Millisecond)}))
//	go l.Run(ctx)                       // until ctx ends; every connection is closed by then
//	l.Set(wan.Profile{Down: wan.Direction{Blackhole: true}}) // requests arrive, answers do not
//
// A relay is no network: it has streams, not packets. So the order within a connection is
// kept whatever happens, a lost packet shows as what TCP makes of it (everything behind it comes
// later), and bytes that a blackhole took are passed on when it ends, as TCP would
// repeat them. What a connection costs to make is emulated too: its first byte arrives a round
// trip later than one of an open connection.
package wan
