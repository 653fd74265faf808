package peer

import (
	"sync"
	"time"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/summary"
)

const (
	// LoadInterval is how often the load of services is looked at, and so how often that of one
	// service is told at most.
	LoadInterval = 5 * time.Second
	// slowWrite is how long a frame takes at most to a reader that is not behind. While frames
	// take longer, no loads are told: what a reader needs more goes first.
	slowWrite = 250 * time.Millisecond
)

// board has the newest loads for all streams.
type board struct {
	loader origin.Loader // nil: none are known

	mu     sync.Mutex
	looked time.Time
	loads  *summary.Loads
}

// at returns the loads of now.
func (b *board) at(now time.Time) *summary.Loads {
	if b.loader == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.looked.IsZero() || now.Sub(b.looked) >= LoadInterval {
		b.loads, b.looked = b.loads.Next(b.loader.Loads()), now
	}
	return b.loads
}

// loads tells the reader how much services are used, when it has everything else and takes what
// it is sent. A change of the catalogue goes first.
func (st *stream) loads() error {
	if st.relay != nil && st.query.Reader != st.server.cfg.Region {
		return nil // ours are not the origin's, and its own are not signed
	}
	if st.again.CompareAndSwap(true, false) {
		st.session.LoadsAgain()
	}
	now := time.Now()
	if now.Sub(st.slow) < LoadInterval && !st.slow.IsZero() {
		return nil
	}
	var loads *summary.Loads
	if st.relay != nil {
		loads = st.relay.Loads(now)
	} else {
		loads = st.server.board.at(now)
	}
	led, _ := st.session.Led()
	for st.source().Image().Version() == led {
		f, ok := st.session.Loads(loads)
		if !ok {
			return nil
		}
		if err := st.write(f); err != nil {
			return err
		}
	}
	return nil
}
