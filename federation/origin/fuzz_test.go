package origin_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// P4, P8: whatever lines arrive, the state machine neither panics nor goes back, what is shown
// changes only by a step without a refusal, and asking again is always possible.
func FuzzStream(f *testing.F) {
	src := regiontest.New("eu-west")
	src.Set(2, "orders", "users", "carts")
	book := origin.NewBook("us-east")
	var tape [][]byte
	record := func(ask replica.Ask) {
		s := book.Open(origin.Door{Region: "eu-west", Node: "n1"}, ask, replica.Proto, 3)
		for {
			frame, state := s.Next(src)
			switch state {
			case origin.Turn:
				s.Admit()
				continue
			case origin.Idle, origin.Wait:
				frame, _ = s.Heartbeat()
			}
			line, _ := json.Marshal(frame)
			tape = append(tape, line)
			if state != origin.Send {
				return
			}
		}
	}
	record(replica.Ask{})
	have := src.Version()
	src.Set(0, "users")
	record(replica.Ask{Have: have})
	_ = src.RaiseEpoch(f.Context(), 4)
	record(replica.Ask{Have: have})
	f.Add(bytes.Join(tape, []byte("\n")))
	f.Add([]byte(`{"kind":"goodbye","reason":"forget"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		now := time.Unix(1_000_000, 0)
		r := replica.New("us-east", "eu-west", now)
		r.Connect(now)
		for line := range bytes.Lines(in) {
			frame, err := replica.Decode(line)
			if err != nil {
				continue
			}
			now = now.Add(time.Second)
			before := r.View()
			eff := r.Step(frame, now)
			after := r.View()
			if o := after.Version.Compare(before.Version); !before.Version.IsZero() && (o == api.Older || o == api.Conflict) {
				t.Fatalf("from %s to %s", before.Version, after.Version)
			}
			if eff.Err != nil {
				if before.Table != after.Table || before.Version != after.Version {
					t.Fatalf("a refused %s changed what is shown", frame.Kind)
				}
				r.Disconnect()
				r.Ask()
				r.Connect(now)
			}
			r.Ack(now)
			r.Tick(now)
		}
		if s := r.Save(); s != nil {
			var disk bytes.Buffer
			if err := s.Encode(&disk); err != nil {
				t.Fatal(err)
			}
			if _, err := replica.Restore("us-east", "eu-west", &disk, 0, now); err != nil {
				t.Fatal(err)
			}
		}
	})
}
