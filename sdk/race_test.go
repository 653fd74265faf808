//go:build race

package nearside

// raced tells that the race detector is on: it makes everything some ten times slower, and
// bears 8,128 goroutines.
const raced = true
