package grpcresolver

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What each end of a call says about its instance.
func TestOutcomes(t *testing.T) {
	const (
		answered = "answered"
		failed   = "failed"
		nothing  = "nothing"
	)
	want := map[codes.Code]string{codes.OK: answered, codes.Unavailable: failed, codes.DeadlineExceeded: failed, codes.Canceled: nothing}
	says := func(info balancer.DoneInfo) string {
		switch err := outcome(info); {
		case err == nil:
			return answered
		case errors.Is(err, context.Canceled):
			return nothing
		}
		return failed
	}
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		w := want[code]
		if w == "" {
			w = answered
		}
		if got := says(balancer.DoneInfo{Err: status.Error(code, "x"), BytesSent: true, BytesReceived: code == codes.OK}); got != w {
			t.Errorf("%s says %s, want %s", code, got, w)
		}
	}
	for _, tc := range []struct {
		name string
		info balancer.DoneInfo
		want string
	}{
		{"the connection was gone before", balancer.DoneInfo{}, nothing},
		{"a stream that came to its time", balancer.DoneInfo{Err: status.Error(codes.DeadlineExceeded, "x"), BytesSent: true, BytesReceived: true}, nothing},
		{"a server that says it is unavailable", balancer.DoneInfo{Err: status.Error(codes.Unavailable, "x"), BytesSent: true, BytesReceived: true}, failed},
		{"no status at all", balancer.DoneInfo{Err: errors.New("x"), BytesSent: true}, answered},
		{"a wrapped status", balancer.DoneInfo{Err: fmt.Errorf("x: %w", status.Error(codes.Unavailable, "x")), BytesSent: true}, failed},
	} {
		if got := says(tc.info); got != tc.want {
			t.Errorf("%s says %s, want %s", tc.name, got, tc.want)
		}
	}
}
