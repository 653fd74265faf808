package etcdcluster

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"
)

// says answers every request with one body, as a cluster.
type says []byte

func (s says) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"X-Etcd-Cluster-Id": {"1"}}, Body: io.NopCloser(bytes.NewReader(s)), Request: r,
	}, nil
}

// FuzzAnswers: whatever stands at the peer address of a member, its version and its list of members are
// read or refused, and no list leads to anything but a step or an error.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		`{"etcdserver":"3.7.0","etcdcluster":"3.7.0"}`, `{"etcdserver":1}`, "[]", "null", "",
		`[{"id":1,"name":"n1","peerURLs":["http://127.0.0.1:1"],"clientURLs":["unix:///x"]},{"id":2,"name":"","peerURLs":["http://127.0.0.1:2"],"isLearner":true}]`,
		`[{"id":18446744073709551615,"peerURLs":[]}]`, `[{"id":-1}]`, `[{"peerURLs":["://"]}]`, "[null]",
	} {
		f.Add([]byte(s))
	}
	c := Config{Node: "n1", Peers: map[string]string{"n1": "127.0.0.1:1", "n2": "127.0.0.1:2", "n3": "127.0.0.1:3"}}
	f.Fuzz(func(t *testing.T, body []byte) {
		p := &PeerClient{http: &http.Client{Transport: says(body)}}
		version, err := p.Version(t.Context(), "http://127.0.0.1:1")
		if len(version) > len(body) || err != nil && version != "" {
			t.Fatalf("version %q of %d bytes, %v", version, len(body), err)
		}
		answers := []Answer{{Node: "n2", Cluster: "1"}, {Node: "n3"}}
		if json.Unmarshal(body, &answers[0].Members) != nil || len(answers[0].Members) == 0 {
			return // as Ask has it
		}
		for _, waited := range []time.Duration{0, time.Hour} {
			if _, _, err := Decide(c, answers, waited); err != nil && err.Error() == "" {
				t.Fatal("a refusal without words")
			}
			Missing(c, answers)
		}
	})
}
