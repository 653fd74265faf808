package nearside

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P3: of three instances at home one hangs and one is killed, and the ways to all other regions are
// cut. The one that is left answers everybody, and is found by every call: neither two failures at home
// nor the silence of the others keep a call from it.
func TestTheOneThatIsLeftIsFound(t *testing.T) {
	for _, rate := range []int{4, 13} {
		const abroad = 3
		t.Run(fmt.Sprintf("%d calls a second", rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us", "eu", "ap")
				hung := w.run("us", "shop", "hung")
				w.run("us", "shop", "dead")
				w.run("us", "shop", "left")
				for i := range abroad {
					w.run("eu", "shop", fmt.Sprint("eu", i))
					w.run("ap", "shop", fmt.Sprint("ap", i))
				}
				web := w.web(w.client("us", nil))
				check(t, load(t, web, "http://shop/", rate, 20*time.Second))
				hold(hung)
				w.net.kill(w.addr("us", "shop", "dead"))
				for i := range abroad {
					w.net.lose(w.addr("eu", "shop", fmt.Sprint("eu", i)), true)
					w.net.lose(w.addr("ap", "shop", fmt.Sprint("ap", i)), true)
				}
				took := check(t, load(t, web, "http://shop/", rate, time.Minute))
				t.Logf("p50 %s, p99 %s, most %s", took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
			})
		})
	}
}

// P3: home is dead, and the way to the next region swallows whoever dials. That is silence like any
// other: one dial into it is enough for a call, and the third region answers.
func TestADialThatNobodyAnswersIsSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu", "ap")
		for i := range 3 {
			w.run("us", "shop", fmt.Sprint("us", i))
			w.run("eu", "shop", fmt.Sprint("eu", i))
			w.run("ap", "shop", fmt.Sprint("ap", i))
		}
		web := w.web(w.client("us", nil))
		check(t, load(t, web, "http://shop/", 1, 5*time.Second))
		for i := range 3 {
			w.net.kill(w.addr("us", "shop", fmt.Sprint("us", i)))
			w.net.lose(w.addr("eu", "shop", fmt.Sprint("eu", i)), true)
		}
		took := check(t, load(t, web, "http://shop/", 1, time.Minute))
		if most := took[len(took)-1]; most > probeDial {
			t.Errorf("a call took %s, longer than one dial", most)
		}
	})
}

// P3: the way to the only region that is not drained is cut. A drain yields to that: its instances work,
// and silent ones are not tried before them.
func TestADrainYieldsToSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu", "ap")
		for i := range 3 {
			w.run("eu", "shop", fmt.Sprint("eu", i))
			w.run("ap", "shop", fmt.Sprint("ap", i))
		}
		w.regions["us"].drain("ap", 100)
		web := w.web(w.client("us", nil))
		for _, c := range load(t, web, "http://shop/", 4, 5*time.Second) {
			if c.region != "eu" {
				t.Fatalf("before: %+v", c)
			}
		}
		for i := range 3 {
			w.net.lose(w.addr("eu", "shop", fmt.Sprint("eu", i)), true)
		}
		took := check(t, load(t, web, "http://shop/", 4, 2*time.Minute))
		t.Logf("p50 %s, p99 %s, most %s", took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	})
}

// P3: the nearest region was away for long and is back, which its breakers do not know yet, when the other
// one that serves goes silent. What is known to be broken is tried before what is silent now.
func TestBrokenIsTriedBeforeSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu", "ap")
		lose := func(region api.Region, on bool) {
			for i := range 3 {
				w.net.lose(w.addr(region, "shop", fmt.Sprint(region, i)), on)
			}
		}
		for i := range 3 {
			w.run("eu", "shop", fmt.Sprint("eu", i))
			w.run("ap", "shop", fmt.Sprint("ap", i))
		}
		web := w.web(w.client("us", nil))
		check(t, load(t, web, "http://shop/", 4, 5*time.Second))
		for range 3 {
			lose("eu", true)
			check(t, load(t, web, "http://shop/", 4, 20*time.Second)) // trials in vain make the pauses long
			lose("eu", false)
			lose("ap", true)
			took := check(t, load(t, web, "http://shop/", 4, 40*time.Second))
			t.Logf("p50 %s, p99 %s, most %s", took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
			lose("ap", false)
			check(t, load(t, web, "http://shop/", 4, 40*time.Second))
		}
	})
}
