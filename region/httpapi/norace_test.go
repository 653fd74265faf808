//go:build !race

package httpapi

// storm is how many watchers the storm test has: as many as a node takes.
const storm = 10_000
