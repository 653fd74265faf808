// Package bench measures a node by what it was built to reach (design, section 10), each
// figure beside its yardstick, both taken in the same run. It has tests only; `make bench`
// runs it last and prints the table.
//
// Two processes share the machine: this one makes the load, and a child runs a node as the
// binary would (package services/node: etcd, metrics, every deadline) and, on a port of its own
// in the same process, the yardstick: a bare echo handler that answers the same bytes. So
// collector, scheduler and heap are the same for both sides. They take turns; the ratio
// is the median over the turns. The client is one and the same for both: see load_test.go.
//
// BenchmarkFederation is apart: two nodes of the binary with an emulated link (services/wan) between
// them, and an SDK client here; its yardstick is one byte over the same kind of link.
package bench
