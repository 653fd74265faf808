package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The client is as cheap as one can be made in Go, so that the server is what is measured:
// requests are ready-made bytes on connections that stay open, one at a time on each, and of an
// answer only the status and the length are read.

// conn is one connection of a client.
type conn struct {
	net.Conn
	r *bufio.Reader
}

func dial(b testing.TB, addr string) *conn {
	b.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	return &conn{c, bufio.NewReaderSize(c, 32<<10)}
}

// request returns the bytes of a request.
func request(method, path string, body []byte) []byte {
	var w bytes.Buffer
	fmt.Fprintf(&w, "%s %s HTTP/1.1\r\nHost: localhost\r\n", method, path)
	if len(body) > 0 {
		fmt.Fprintf(&w, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	} else if method != "GET" {
		w.WriteString("Content-Length: 0\r\n")
	}
	w.WriteString("\r\n")
	w.Write(body)
	return w.Bytes()
}

// call sends one request; it returns the status and, when keep is set, the body.
func (c *conn) call(req []byte, keep bool) (status int, body []byte, err error) {
	if _, err := c.Write(req); err != nil {
		return 0, nil, err
	}
	head, err := c.head()
	if err != nil {
		return 0, nil, err
	}
	status = int(head[9]-'0')*100 + int(head[10]-'0')*10 + int(head[11]-'0')
	const field = "\r\nContent-Length: "
	length, digits := 0, head[max(0, bytes.Index(head, []byte(field)))+len(field):]
	for _, d := range digits {
		if d < '0' || d > '9' {
			break
		}
		length = 10*length + int(d-'0')
	}
	if _, err := c.r.Discard(len(head)); err != nil {
		return 0, nil, err
	}
	if keep {
		body = make([]byte, length)
		_, err = io.ReadFull(c.r, body)
		return status, body, err
	}
	_, err = c.r.Discard(length)
	return status, nil, err
}

// head returns the head of an answer, which stays in the buffer.
func (c *conn) head() ([]byte, error) {
	for n := 64; ; n = c.r.Buffered() + 1 {
		if _, err := c.r.Peek(n); err != nil {
			return nil, err
		}
		b, _ := c.r.Peek(c.r.Buffered()) // all that came
		if end := bytes.Index(b, []byte("\r\n\r\n")); end >= 0 {
			return b[:end+4], nil
		}
	}
}

// load is a number of clients that call one address.
type load struct {
	conns []*conn
	next  func(client, n int) []byte // the n-th request of a client
}

func newLoad(b *testing.B, addr string, clients int, next func(client, n int) []byte) *load {
	l := &load{next: next}
	for range clients {
		l.conns = append(l.conns, dial(b, addr))
	}
	b.Cleanup(func() {
		for _, c := range l.conns {
			_ = c.Close()
		}
	})
	return l
}

// run calls from all clients for about d; it returns the calls per second.
func (l *load) run(b *testing.B, d time.Duration) float64 {
	b.Helper()
	var calls atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for i, c := range l.conns {
		wg.Go(func() {
			n := 0
			for ; time.Since(began) < d; n++ {
				status, _, err := c.call(l.next(i, n), false)
				if err != nil || status/100 != 2 {
					b.Errorf("status %d, %v", status, err)
					break
				}
			}
			calls.Add(int64(n))
		})
	}
	wg.Wait()
	return float64(calls.Load()) / time.Since(began).Seconds()
}

// fixed always sends the same request.
func fixed(req []byte) func(int, int) []byte { return func(int, int) []byte { return req } }

// duel lets two sides take turns, and returns the medians of their rates and of the ratio
// of neighbouring turns.
func duel(b *testing.B, turns int, turn time.Duration, ours, theirs func(time.Duration) float64) (our, their, ratio float64) {
	b.Helper()
	ours(turn / 2)
	theirs(turn / 2) // warm
	var a, c, q []float64
	for i := range turns {
		var x, y float64
		if i%2 == 0 {
			x, y = ours(turn), theirs(turn)
		} else {
			y, x = theirs(turn), ours(turn)
		}
		a, c, q = append(a, x), append(c, y), append(q, x/y)
	}
	return median(a), median(c), median(q)
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
