package mesh

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/sdk/api"
)

// P12: who does not prove to be the region that it says is refused, counted, and told of: once for each cause
// in a while, however often it knocks.
func TestRefusedReadersAreToldOf(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		var told noticeLog
		m, err := New(Config{
			Region: "us-east", Node: "n1", Source: regiontest.New("us-east"), HTTPClient: n.client(), OnNotice: told.take,
			PeerRegion: func(r *http.Request) (api.Region, error) { // the certificate, in the tests' own way
				if c := r.Header.Get("Certificate"); c != "" {
					return api.Region(c), nil
				}
				return "", errors.New("no certificate")
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		client := n.client()
		runMesh(t, m, client)
		_, stop := n.serve("us-east", m.Handler())
		defer stop()
		ask := func(reader, certificate string) int {
			url := "http://us-east:7402" + peer.PathStream + "?proto=1&max_proto=2&region=us-east&reader=" + reader
			req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
			if certificate != "" {
				req.Header.Set("Certificate", certificate)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			return resp.StatusCode
		}
		for range 20 {
			if a, b, c := ask("eu-west", ""), ask("eu-west", "ap-south"), ask("us-east", "us-east"); a != 401 || b != 403 || c != 409 {
				t.Fatalf("%d %d %d", a, b, c)
			}
		}
		if got := told.of(api.EventReaderRefused); len(got) != 2 || got[0].Cause != api.BecauseNoIdentity || got[1].Cause != api.BecauseCertificate ||
			got[0].Region != "us-east" || !strings.Contains(got[1].Detail, "eu-west") || !strings.Contains(got[1].Detail, "ap-south") {
			t.Errorf("%+v", got)
		}
		if got := told.of(api.EventDuplicate); len(got) != 1 || got[0].Cause != api.BecauseOurName {
			t.Errorf("%+v", got)
		}
		after(refusedQuiet)
		ask("eu-west", "ap-south")
		if got := told.of(api.EventReaderRefused); len(got) != 3 || !strings.Contains(got[2].Detail, "20 times") {
			t.Errorf("%+v", got)
		}
		if c := m.refusals.counts(); c[api.BecauseNoIdentity] != 20 || c[api.BecauseCertificate] != 21 || c[api.BecauseOurName] != 20 {
			t.Errorf("%v", c)
		}
	})
}

// Failure 52: a peer's address at which a region of our own name answers is told of at both ends.
func TestPeerOfOurOwnName(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us := newRegion(t, n, "us-east", "eu-west")
		us.start()
		defer us.stop()
		_, stop := n.serve("eu-west", says(func(int) []any {
			f := greets(5)
			f.Region = "us-east"
			return []any{f}
		}))
		defer stop()
		us.until("it is told of", func() bool { return len(us.notices.of(api.EventDuplicate)) > 0 })
		if got := us.notices.of(api.EventDuplicate)[0]; got.Region != "us-east" || got.Cause != api.BecauseOurName {
			t.Errorf("%+v", got)
		}
	})
}
