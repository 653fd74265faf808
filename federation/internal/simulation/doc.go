// Package simulation drives the state machines of the federation, package origin and package
// replica, through a network that loses, repeats, reorders, replays, delays and partitions,
// with regions that crash, lose their disk or get an old one back, skewed clocks, and two
// publishers in one region. Every run follows from its seed alone.
package simulation
