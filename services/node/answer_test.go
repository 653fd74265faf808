package node

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// FuzzNodeAnswer: whatever stands at the address of another node, it is refused with an error or is an
// answer that can be told on as it was read; what is refused leaves nothing behind.
func FuzzNodeAnswer(f *testing.F) {
	for _, s := range []string{
		"{}", "null", "[]", `{"term":1}`, `{"code":"unavailable","detail":"x"}`, `{"code":"no-such-code"}`, `{"doors":["http://10.0.0.1:7402"]}`, "{\"a\":", "\xff", `{"term":-1}`, `{"doors":[1]}`,
	} {
		f.Add(http.StatusOK, []byte(s))
		f.Add(http.StatusServiceUnavailable, []byte(s))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		same(t, status, body, new(api.NodeAnswer), new(api.NodeAnswer))
		same(t, status, body, new(api.FederationInfo), new(api.FederationInfo))
	})
}

func same(t *testing.T, status int, body []byte, first, second any) {
	t.Helper()
	err := readAnswer(status, bytes.NewReader(body), first)
	if status != http.StatusOK && err == nil {
		t.Fatalf("status %d is no error", status)
	}
	if err != nil {
		if err.Error() == "" {
			t.Fatal("an error without words")
		}
		return
	}
	told, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := readAnswer(http.StatusOK, bytes.NewReader(told), second); err != nil {
		t.Fatalf("%s was read, and then not: %v", told, err)
	}
	if again, _ := json.Marshal(second); !bytes.Equal(told, again) {
		t.Fatalf("%s became %s", told, again)
	}
}
