package mesh

import (
	"testing"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/sdk/api"
)

// P4, P12: claims of newer histories lead an origin only as far as every honest reader follows, one
// that was away for several of them too.
func TestClaimsDoNotCutHonestReadersOff(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west", "us-east")
		eu.source.Set(3, "payments")
		eu.start()
		defer eu.stop()
		us.start()
		us.has("eu-west", "payments", 3)
		us.stop()

		http := n.client()
		defer http.CloseIdleConnections()
		liar := peer.NewClient(http, nil)
		claim := func(jump uint64) error {
			e := eu.source.Version().Epoch
			s, err := liar.Open(t.Context(), "http://eu-west:7402", peer.Query{
				Reader: "mallory", Origin: "eu-west", Have: api.Version{Region: "eu-west", Epoch: api.Epoch{Generation: e.Generation + jump, Nonce: 1}, Revision: 1},
			}, nil)
			if err == nil {
				s.Close()
			}
			return err
		}
		if claim(origin.MaxClaim+1) == nil {
			t.Error("a claim beyond the limit led the origin")
		}
		for i := range 4 {
			if err := claim(origin.MaxClaim); err != nil {
				t.Fatalf("claim %d: %v", i, err)
			}
		}
		eu.source.Set(4, "payments")
		us.start()
		defer us.stop()
		us.has("eu-west", "payments", 4)
		us.converged(eu)
	})
}
