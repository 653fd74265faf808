//go:build race

package httpapi

// storm is how many watchers the storm test has: the race detector bears 8,128 goroutines.
const storm = 2_000
