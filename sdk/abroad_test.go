package nearside

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// P3: a program that asks for new names all the time, as a proxy does, finds home as soon as any
// other.
func TestAbroadNewNamesDoNotKeepFromHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		us, eu := w.regions["us"], w.regions["eu"]
		us.put("orders", "home", "h:80", nil)
		c := w.client("us", nil)
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		asked := 0
		ask := func(d time.Duration) {
			for start := time.Now(); time.Since(start) < d; time.Sleep(400 * time.Millisecond) {
				asked++
				_, _ = c.Pick(t.Context(), fmt.Sprintf("new%d", asked)) // nobody has it
			}
		}
		w.net.kill(us.addr)
		ask(6 * time.Second)
		if n := eu.watches(); n < 5 {
			t.Fatalf("%d watches abroad: a new name should open one", n)
		}
		us.start()
		ask(4 * time.Second)
		synctest.Wait()
		eu.mu.Lock()
		far := len(eu.subs)
		eu.mu.Unlock()
		us.mu.Lock()
		near := len(us.subs)
		us.mu.Unlock()
		if near != 1 || far != 0 {
			t.Errorf("four seconds after home is back: %d streams at home, %d abroad", near, far)
		}
	})
}
