// Package scale measures the federation's state machines at the size of the design: 100,000
// services in each of 20 regions. It has benchmarks only; `make bench` runs them.
//
// What is simulated, and what is not: one region as an origin of 100,000 services of 3 instances
// (two zones, capacity, load) tells ONE reader region everything it tells, as lines of JSON, which
// are counted plain and through the compressor of package peer; the reader decodes, checks and
// applies them: the real origin.Book, origin.Session and replica.Replica with the real frames. The
// receiving region then takes snapshots of the same rows from 18 more regions, under the names of
// those: each of 1,800,000 rows is read, checked and applied by the real replica.Replica; what is
// left out for them is the making of the rows and the JSON of the frames, which the first link
// measures. So it holds 19 replicas of 100,000 rows, with nothing shared between them. There is
// no network and no disk: the figures are time of one processor, bytes, and live heap. What an
// origin keeps for 19 readers is 19 times what is measured for one.
package scale
