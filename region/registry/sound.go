//go:build !brown

package registry

// brown is the known bug that this build has: none. Builds with the tag brown have the one
// that their environment names, so that the tests can be tested (e2e/safety, TestBrownMMs).
// As a constant it leaves nothing in the program.
const brown = ""

// committed is called between a commit and its answer.
func committed() {}
