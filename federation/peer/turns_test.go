package peer_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// turnstile is a source whose snapshots, once it is shut, stop at one of their rows until it is
// opened. It counts those that stand there.
type turnstile struct {
	*regiontest.Source
	at      api.ServiceKey
	arrived chan struct{} // one for each that comes

	mu       sync.Mutex
	shut     chan struct{} // nil: open
	now, max int
}

func (g *turnstile) Image() peer.Image { return gated{g.Source.Image(), g} }

type gated struct {
	peer.Image
	g *turnstile
}

func (i gated) Service(k api.ServiceKey) ([]*api.Instance, uint64) {
	if k == i.g.at {
		i.g.pass()
	}
	return i.Image.Service(k)
}

func (g *turnstile) pass() {
	g.mu.Lock()
	shut := g.shut
	g.now++
	g.max = max(g.max, g.now)
	g.mu.Unlock()
	if shut != nil {
		g.arrived <- struct{}{}
		<-shut
	}
	g.mu.Lock()
	g.now--
	g.mu.Unlock()
}

// Failure 58: with all places for snapshots taken, the others are kept alive and served later;
// at no time more are on their way than there are places.
func TestSnapshotsTakeTurns(t *testing.T) {
	const places, count = 2, 5
	src := regiontest.New("eu-west")
	src.Set(2, names(300)...)
	g := &turnstile{Source: src, at: regiontest.Key(names(300)[100]), arrived: make(chan struct{}, count)}
	_, base := door(t, peer.ServerConfig{Source: g, MaxSnapshots: places})
	readers := make([]*reader, count)
	for i := range readers {
		readers[i] = newReader(t, base)
		readers[i].name = api.Region(fmt.Sprintf("reader-%d", i))
		readers[i].open() // the first time makes the rows of its book
		for readers[i].replica.Have() != src.Version() {
			readers[i].next()
		}
		readers[i].stream.Close()
	}
	shut := make(chan struct{})
	g.mu.Lock()
	g.shut, g.max = shut, 0
	g.mu.Unlock()
	greeted := make(chan int, count)
	var all sync.WaitGroup
	for i, r := range readers {
		r.replica = replica.New(r.name, "eu-west", time.Now()) // as on an empty disk
		r.open()
		all.Go(func() {
			hellos := 0
			for r.replica.Have() != src.Version() {
				f, err := r.stream.Next()
				if err != nil {
					t.Error(err)
					return
				}
				if eff := r.replica.Step(f, time.Now()); eff.Err != nil {
					t.Error(eff.Err)
					return
				}
				if f.Kind != replica.Hello {
					continue
				}
				if hellos++; hellos == 2 {
					greeted <- i // while it waits in line
				}
			}
		})
	}
	late := time.After(time.Minute)
	for waiting, sending := 0, 0; sending <= places && waiting+sending < count; {
		select {
		case <-greeted:
			waiting++
		case <-g.arrived:
			sending++
		case <-late:
			t.Fatalf("%d of %d readers wait in line, %d are served", waiting, count, sending)
		}
	}
	close(shut)
	all.Wait()
	if g.max != places {
		t.Errorf("P8: at most %d snapshots were on their way at a time, there are places for %d", g.max, places)
	}
}
