package encoded

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// However many ask for a frame at once, it is encoded once, and all get the same bytes.
func TestEncodedOnceForAll(t *testing.T) {
	budget := NewBudget(1 << 20)
	var f Frame
	var times atomic.Int64
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			b, err := f.Bytes(i%Forms, budget, func() ([]byte, error) {
				times.Add(1)
				return fmt.Appendf(nil, "form %d", i%Forms), nil
			})
			if err != nil || string(b) != fmt.Sprintf("form %d", i%Forms) {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	wg.Wait()
	if n := times.Load(); n != Forms {
		t.Errorf("encoded %d times", n)
	}
}

// What is held stays within the budget (P8): the oldest goes, and comes back when asked for.
func TestBudgetLetsGoOfTheOldest(t *testing.T) {
	budget := NewBudget(10 * (100 + overhead))
	frames := make([]Frame, 1000)
	encoded := 0
	ask := func(i int) {
		b, err := frames[i].Bytes(0, budget, func() ([]byte, error) { encoded++; return make([]byte, 100), nil })
		if err != nil || len(b) != 100 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
	}
	for i := range frames {
		ask(i)
		if budget.Bytes() > 10*(100+overhead) || cap(budget.held) > 64 {
			t.Fatalf("after %d: %d bytes held in a list of %d", i, budget.Bytes(), cap(budget.held))
		}
	}
	ask(999)
	if encoded != 1000 {
		t.Errorf("a frame that is held was encoded again")
	}
	ask(0)
	if encoded != 1001 {
		t.Errorf("a frame that was let go of came from nowhere")
	}
	if _, err := frames[5].Bytes(1, budget, func() ([]byte, error) { return nil, errors.New("no") }); err == nil || budget.Bytes() > 10*(100+overhead) {
		t.Error("a failure is told, and held by nobody")
	}
	if _, err := frames[6].Bytes(0, budget, func() ([]byte, error) { return make([]byte, 1<<20), nil }); err != nil || budget.Bytes() != 0 {
		t.Errorf("what is larger than the budget is not held: %v, %d bytes", err, budget.Bytes())
	}
}
