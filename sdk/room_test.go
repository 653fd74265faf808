package nearside

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// P4: also when a namespace's last service was let go, and with it the watch, a node that is
// behind does not take the client back.
func TestRoomMadeForgetsNoVersion(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.put("orders", "a", "a:80", nil)
		behind := us.node("behind.registry:7400")
		w.net.kill(behind.addr)
		us.put("orders", "b", "b:80", nil)
		c := w.client("us", func(cfg *Config) {
			cfg.SnapshotDir = dir
			cfg.Addresses = []string{us.base(), behind.base()}
		})
		c.most = 1
		both := []string{"a", "b"}
		if got := ids(t, c, "orders"); !slices.Equal(got, both) {
			t.Fatal(got)
		}
		time.Sleep(knownIdle + 10*time.Second)
		_, _ = c.Pick(t.Context(), "other.elsewhere") // takes the place of orders
		if s := (*c.services.Load())["orders"]; s != nil {
			t.Fatal("orders is still watched")
		}
		time.Sleep(unknownIdle + 10*time.Second)
		w.net.kill(us.addr)
		behind.start()
		for range 5 {
			if got := ids(t, c, "orders"); !slices.Equal(got, both) {
				t.Fatalf("the node that is behind took the client back: %v", got)
			}
			time.Sleep(3 * time.Second)
		}
		us.start()
		us.put("orders", "c", "c:80", nil)
		time.Sleep(10 * time.Second)
		if got := ids(t, c, "orders"); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("with the region's newest node: %v", got)
		}
	})
}
