package cli

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// The health check of the container image works for a node with TLS, and shows it no token.
func TestCheckReadyOfANodeWithTLS(t *testing.T) {
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the token is shown")
		}
		writeReply(w, reply{body: ready})
	}))
	node.Config.ErrorLog = log.New(io.Discard, "", 0)
	node.StartTLS()
	defer node.Close()
	plain := "http" + node.URL[len("https"):]
	dir := t.TempDir()
	file := filepath.Join(dir, "ready.json")
	b, _ := json.Marshal(api.ReadyFile{HTTP: node.URL})
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	other := newNode(t, map[string]reply{"GET /readyz": {status: 503, body: notReady}})
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
		exit int
	}{
		"as the image asks":             {map[string]string{"NEARSIDE_ADDR": plain, "NEARSIDE_TOKEN": "secret"}, nil, ExitOK},
		"the ready file":                {map[string]string{"NEARSIDE_TOKEN": "secret"}, []string{"--ready-file", file}, ExitOK},
		"the ready file of the server":  {map[string]string{"NEARSIDE_READY_FILE": file, "NEARSIDE_ADDR": other.URL}, nil, ExitOK},
		"an address wins over that":     {map[string]string{"NEARSIDE_READY_FILE": file}, []string{"--addr", other.URL}, ExitFalse},
		"no ready file yet":             {nil, []string{"--ready-file", filepath.Join(dir, "none")}, ExitFalse},
		"both":                          {nil, []string{"--ready-file", file, "--addr", plain}, ExitUsage},
		"an authority that is not its":  {map[string]string{"NEARSIDE_ADDR": plain}, []string{"--ca-cert", otherAuthority(t)}, ExitUnreachable},
		"a certificate that is not its": {map[string]string{"NEARSIDE_ADDR": node.URL}, nil, ExitUnreachable}, // as ever
	} {
		t.Run(name, func(t *testing.T) {
			r := program{env: c.env}.run(t.Context(), append([]string{"check", "ready"}, c.args...)...)
			wantCode(t, r, c.exit)
		})
	}
}

func TestOnThisMachine(t *testing.T) {
	for base, want := range map[string]bool{
		"http://127.0.0.1:7400": true, "http://[::1]:7400": true, "http://localhost": true, "http://10.0.0.1:7400": false, "http://example.org": false, "::": false,
	} {
		if got := onThisMachine(base); got != want {
			t.Errorf("%s: %t", base, got)
		}
	}
}

// otherAuthority writes the certificate of an authority that signed nothing.
func otherAuthority(t *testing.T) string {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
