package probe

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"
)

// FuzzAnswer reads whatever a checked instance may answer: never a panic, and never an interim
// answer for the final one.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 301 x\r\nLocation: http://169.254.169.254/\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "SSH-2.0-x\r\n", "HTTP/1.1 -1 x\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
	} {
		f.Add([]byte(s))
	}
	req, err := http.NewRequest(http.MethodGet, "http://10.0.0.1/", nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		resp, err := readFinal(bufio.NewReader(bytes.NewReader(b)), req)
		if err != nil {
			return
		}
		if resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("status %d is final", resp.StatusCode)
		}
		n, _ := io.CopyN(io.Discard, resp.Body, maxBody)
		if n > int64(len(b)) {
			t.Errorf("%d bytes of body in %d", n, len(b))
		}
	})
}
