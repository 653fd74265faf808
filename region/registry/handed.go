package registry

import (
	"bytes"
	"maps"
	"slices"
	"sync"

	"github.com/nearside/nearside/sdk/api"
)

// handed are the instances whose records this node is writing, so that a record that comes back
// from the store need not be read to know what it says: the same bytes say the same. It is
// safe for concurrent use.
type handed struct {
	mu   sync.Mutex
	list map[string]given // by record key
}

type given struct {
	value    []byte
	instance *api.Instance
}

// put notes that value is the record of in. What in refers to is copied: the caller's program may
// change it later.
func (h *handed) put(key string, value []byte, in api.Instance) {
	// As it is read from a record: what is empty is not there.
	in.Overdue, in.Revision = false, 0
	in.Ports, in.Tags, in.Metadata = maps.Clone(in.Ports), slices.Clone(in.Tags), maps.Clone(in.Metadata)
	if len(in.Ports) == 0 {
		in.Ports = nil
	}
	if len(in.Tags) == 0 {
		in.Tags = nil
	}
	if len(in.Metadata) == 0 {
		in.Metadata = nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.list == nil {
		h.list = map[string]given{}
	}
	h.list[key] = given{value, &in}
}

// drop forgets the writes of a key.
func (h *handed) drop(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.list, key)
}

// known returns the instance that a record says; nil when that is not known. The caller owns it.
func (h *handed) known(key string, value []byte) *api.Instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	w, ok := h.list[key]
	if !ok || !bytes.Equal(w.value, value) {
		return nil
	}
	delete(h.list, key) // one record, one instance: snapshots never share what another may change
	return w.instance
}

// plainly reports whether an instance has nothing but what handed.put copies.
func plainly(in *api.Instance) bool {
	return len(in.Checks) == 0 && len(in.CheckResults) == 0 && in.Set == nil && in.BeforeDrain == nil
}
