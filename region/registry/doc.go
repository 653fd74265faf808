// Package registry is the use cases of a region: register, heartbeat, deregister, list,
// resolve, watch. It owns the loops that keep the catalogue in step with the store.
package registry
