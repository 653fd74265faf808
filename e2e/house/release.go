package house

import "strings"

// Releases checks a file that builds or ships the product: the Makefile, the CI script, and
// everything in deploy.
func Releases(name, text string) []Violation {
	var vs []Violation
	for line := range strings.Lines(text) {
		if fields := strings.Fields(strings.ToLower(line)); strings.Contains(strings.ToLower(line), "brown") || hasTags(fields) {
			vs = append(vs, Violation{
				name, "builds with tags: " + strings.TrimSpace(line),
				"the tag brown brings known bugs back to test the tests (e2e/safety), and the sure way that none is ever shipped is that no release knows of build tags",
			})
		}
	}
	return vs
}

// hasTags reports whether a command line gives build tags to go.
func hasTags(fields []string) bool {
	for _, f := range fields {
		f = strings.Trim(f, `"'`)
		if f == "-tags" || f == "--tags" || strings.Contains(f, "-tags=") {
			return !strings.Contains(strings.Join(fields, " "), "git describe")
		}
	}
	return false
}
