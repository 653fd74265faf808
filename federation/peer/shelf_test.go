package peer

import (
	"fmt"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

type noRelay struct {
	Relay
	_ [8]byte // each is another one
}

// P8: readers that come once under many names leave nothing behind.
func TestShelfRemembersNoEndOfNames(t *testing.T) {
	s := shelf{books: make(map[bookKey]*book), passed: make(map[api.Region]uint64)}
	for i := range 10_000 {
		b := s.open(api.Region(fmt.Sprintf("r%d", i)), &noRelay{}, time.Now())
		b.bytes.Store(5)
		s.close(b, time.Now())
	}
	if n := len(s.sent()); n > maxPassed || s.sent()["r0"] != 5 {
		t.Errorf("%d names are remembered", n)
	}
}
