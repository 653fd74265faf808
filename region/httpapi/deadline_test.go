package httpapi

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A deadline that nobody waits for costs no timer, and behaves as one of the standard library
// in every other way.
func TestDeadlineIsThatOfTheStandardLibrary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "v"))
		defer cancel()
		never := withDeadline(parent, time.Second)
		early := withDeadline(parent, time.Second)
		early.end()
		if never.Err() != nil || !errors.Is(early.Err(), context.Canceled) {
			t.Errorf("before it: %v and %v", never.Err(), early.Err())
		}
		<-early.Done()
		child, stop := context.WithTimeout(never, time.Hour)
		defer stop()
		if child.Value(key{}) != "v" || never.Value(key{}) != "v" {
			t.Error("values are lost")
		}
		began := time.Now()
		<-child.Done()
		if took := time.Since(began); took != time.Second || !errors.Is(child.Err(), context.DeadlineExceeded) || !errors.Is(never.Err(), context.DeadlineExceeded) {
			t.Errorf("ended after %s with %v", took, child.Err())
		}
		unseen := withDeadline(parent, time.Second)
		<-time.After(2 * time.Second)
		if !errors.Is(unseen.Err(), context.DeadlineExceeded) {
			t.Errorf("not waited for: %v", unseen.Err())
		}
		gone := withDeadline(parent, time.Second)
		waits := withDeadline(parent, time.Second)
		done := waits.Done()
		cancel()
		<-done
		if !errors.Is(gone.Err(), context.Canceled) || !errors.Is(waits.Err(), context.Canceled) {
			t.Errorf("the parent ended: %v, %v", gone.Err(), waits.Err())
		}
		if at, ok := withDeadline(withDeadline(t.Context(), time.Second), time.Hour).Deadline(); !ok || time.Until(at) != time.Second {
			t.Error("an earlier deadline of the parent is lost")
		}
	})
}
