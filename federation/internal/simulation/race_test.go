//go:build race

package simulation

// With the race detector each seed takes several times as long, and there is nothing to race:
// `make test` runs the simulation without it too.
func init() { defaultSeeds = 200 }
