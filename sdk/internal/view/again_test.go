package view

import (
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// P5, P7: a service that was let go and is asked for again while a stream goes on is not filled
// by what is left of that stream: a change is no list, and nothing is not an empty one.
func TestAskedForAgainOnAnOldStream(t *testing.T) {
	again := func(b *Book) { b.Drop(key); b.Want(key) }

	b := book()
	begin(b, false)
	script(t, b, t0, item(at("us", 1, 5), "a"), item(at("us", 1, 5), "b"), synced(at("us", 1, 5)))
	again(b)
	script(t, b, t0, change(at("us", 1, 6), api.OpPut, "c", false))
	if b.Known(key) {
		t.Error("one change of a live stream is taken for the whole list")
	}
	has(t, b, t0, "us")
	begin(b, false)
	script(t, b, t0, item(at("us", 1, 6), "a"), item(at("us", 1, 6), "b"), item(at("us", 1, 6), "c"), synced(at("us", 1, 6)))
	has(t, b, t0, "us", "a", "b", "c")

	begin(b, true)
	again(b)
	eff, err := b.Apply(synced(at("us", 1, 6)), t0)
	if err != nil || !eff.Synced || len(eff.Changed) != 0 || b.Synced(key) || b.Known(key) {
		t.Errorf("a stream that continues what was let go: %+v, %v: it has no answer for the service", eff, err)
	}
}
