// Package etcdchild runs the etcd member of a node in a child process of the same program, and
// starts it again whenever it ends: whatever ends etcd (a fatal entry, a panic, no memory,
// kill -9) ends nothing else.
//
//	node ── Supervisor ──┬─ stdin   its orders: a line of JSON, then "stop"; its end: the node has died
//	                     ├─ stdout  its reports: ready, failed, ended, sizes; lines of JSON
//	                     ├─ stderr  its log: lines of JSON, and what the Go runtime says of its end
//	                     └─ unix socket ── etcdstore
//
// The child is this program with [Verb] as its only argument ([Main]). It is in a process group of its
// own and ignores SIGINT, SIGTERM and SIGHUP, which reach whole groups and units: the node
// ends it, after its last write. When the node dies, the child ends within a moment: its
// standard input does, and on Linux the kernel kills it.
package etcdchild
