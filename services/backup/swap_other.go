//go:build !linux

package backup

func swap(a, b string) error { return swapInSteps(a, b) }
