package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// P4: what was saved is loaded; no file is no mark, and a broken one is told.
func TestHighWaterIsKeptNextToTheStore(t *testing.T) {
	dir := t.TempDir()
	h := newHighWater(dir)
	if v, err := h.Load(); err != nil || !v.IsZero() {
		t.Errorf("without a file: %v, %v", v, err)
	}
	want := api.Version{Region: "eu-west", Epoch: api.Epoch{Generation: 2, Nonce: 7}, Revision: 41}
	if err := h.Save(want); err != nil {
		t.Fatal(err)
	}
	if v, err := newHighWater(dir).Load(); err != nil || v != want {
		t.Errorf("%v, %v", v, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "head"), []byte("eu-w"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := h.Load(); err == nil {
		t.Errorf("half a file gave %v", v)
	}
}
