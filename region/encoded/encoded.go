// Package encoded keeps what was encoded once for all who are sent the same, and writes by hand
// what is encoded most.
//
// A [Frame] belongs to one thing that is told to many, such as a change. Whoever is the
// first to send it encodes it; the others are given the same bytes. A [Budget] bounds the
// bytes of all: the oldest are let go of, and encoded again if they are asked for once more.
package encoded

import (
	"sync"
	"sync/atomic"
)

// Forms is how many forms one frame may have.
const Forms = 2

// Frame is the place for the encoded forms of one thing. The zero Frame is empty; it must
// not be copied. It is safe for concurrent use.
type Frame struct {
	forms [Forms]atomic.Pointer[[]byte]
	mu    sync.Mutex
}

// Bytes returns the form, which encode makes unless it is there. The bytes are shared: do
// not change them. Callers at the same moment wait for the one that encodes.
func (f *Frame) Bytes(form int, budget *Budget, encode func() ([]byte, error)) ([]byte, error) {
	if p := f.forms[form].Load(); p != nil {
		return *p, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.forms[form].Load(); p != nil {
		return *p, nil
	}
	b, err := encode()
	if err != nil {
		return nil, err
	}
	f.forms[form].Store(&b)
	budget.add(f, form, len(b))
	return b, nil
}

// Budget bounds the bytes that frames hold. It is safe for concurrent use.
type Budget struct {
	most int

	mu    sync.Mutex
	held  []holding // oldest first, from begin
	begin int
	bytes int
}

type holding struct {
	frame *Frame
	form  int
	bytes int
}

// NewBudget returns a budget of that many bytes.
func NewBudget(most int) *Budget { return &Budget{most: most} }

// overhead is what a holding costs beside its bytes.
const overhead = 64

func (b *Budget) add(f *Frame, form, bytes int) {
	bytes += overhead
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = append(b.held, holding{f, form, bytes})
	b.bytes += bytes
	for b.bytes > b.most {
		old := &b.held[b.begin]
		old.frame.forms[old.form].Store(nil)
		b.bytes -= old.bytes
		*old = holding{}
		b.begin++
	}
	if b.begin > len(b.held)/2 {
		n := copy(b.held, b.held[b.begin:])
		clear(b.held[n:])
		b.held, b.begin = b.held[:n], 0
	}
}

// Bytes returns how many bytes are held.
func (b *Budget) Bytes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}
