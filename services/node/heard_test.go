package node

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store/memstore"
)

// Failure 16, honest ages: a node that is cut off from the store of several tells other regions
// how long it has not heard of its own; where it is the only one that writes, what it has is new.
func TestCutOffNodeCallsNothingNew(t *testing.T) {
	store, err := memstore.New("eu-west")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var away atomic.Bool
	reg, err := registry.New(registry.Config{
		Region: "eu-west", Zone: "a", Node: "n1", Store: store, Authorizer: registry.OpenAccess(),
		Trouble: func() string {
			if away.Load() {
				return "it has no quorum"
			}
			return ""
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- reg.Run(ctx) }()
	defer func() { cancel(); <-done }()
	<-reg.Loaded()
	shared, alone := &source{Registry: reg, shared: true}, &source{Registry: reg}
	if age := time.Since(shared.heard()); age > time.Second {
		t.Fatalf("in good times it is %s old", age)
	}
	store.SetUnavailable(true)
	away.Store(true)
	reg.StoreChanged()
	// It notices within milliseconds; from then on what it knows grows older.
	for deadline := time.After(10 * time.Second); time.Since(shared.heard()) < 100*time.Millisecond; {
		select {
		case <-time.After(10 * time.Millisecond): // a look, no bound
		case <-deadline:
			t.Fatal("ten seconds after it was cut off it calls what it knows new")
		}
	}
	if time.Since(alone.heard()) > time.Second {
		t.Fatalf("what nobody else can change is %s old", time.Since(alone.heard()))
	}
}
