package mesh

import (
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/replica"
)

// The age is an upper bound (I, replication.md "staleness accounting"), so the round trip in it must not be
// that of a way which is gone: the first measurement after the link was down counts fully, others are
// smoothed, and a shorter one always counts.
func TestRoundTripIsMeasuredAnewAfterTheLinkWasDown(t *testing.T) {
	const ms = time.Millisecond
	m, err := New(Config{Region: "us-east", Source: regiontest.New("us-east")})
	if err != nil {
		t.Fatal(err)
	}
	l := newLink(m, "eu-west", nil, "")
	connect := func() { l.up(replica.Frame{Node: "eu-west-1"}) }
	connect()
	for _, step := range []struct {
		again    bool
		measured time.Duration
		want     time.Duration
	}{
		{measured: 10 * ms, want: 10 * ms},
		{measured: 50 * ms, want: 20 * ms},
		{measured: 8 * ms, want: 8 * ms},
		{again: true, measured: 600 * ms, want: 600 * ms},
		{measured: 580 * ms, want: 580 * ms},
		{measured: 620 * ms, want: 590 * ms},
	} {
		if step.again {
			l.down(errGoodbye)
			connect()
		}
		l.roundTrip(step.measured)
		if l.rtt != step.want {
			t.Errorf("after a measurement of %s the round trip is %s, want %s", step.measured, l.rtt, step.want)
		}
	}
}
