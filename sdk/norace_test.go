//go:build !race

package nearside

const raced = false
