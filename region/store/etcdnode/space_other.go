//go:build !linux

package etcdnode

// freeBytes cannot tell here; etcd itself will say when the disk is full.
func freeBytes(string) (uint64, bool) { return 0, false }

// allocateAhead does nothing here.
func allocateAhead(string, int64) error { return nil }
