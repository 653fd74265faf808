// Package demo runs three regions on this machine as real processes of the same binary:
// in each a registry node, two copies of the shop and a load generator. It can kill and
// restore regions on a schedule, and measures what shoppers notice.
//
//	demo ──┬─ us-east   server · shop a · shop b · load   (ports base+0…)
//	       ├─ eu-west   server · shop a · shop b · load   (ports base+100…)
//	       └─ ap-south  server · shop a · shop b · load   (ports base+200…), without payments
//
// Every child is in a process group of its own and dies with the demo, whatever happens
// to it.
package demo
