package registry

import (
	"context"
	"fmt"
	"testing"

	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// benchBed is a loaded registry of services with 10 instances each.
func benchBed(b *testing.B, services int) *Registry {
	b.Helper()
	m, err := memstore.New("eu-west")
	if err != nil {
		b.Fatal(err)
	}
	r, err := New(Config{Region: "eu-west", Store: m, Replicas: newReplicas("ap-south", "us-east")})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	<-r.Loaded()
	long := reg()
	long.TTL = api.Duration(api.MaxTTL)
	for s := range services {
		for i := range 10 {
			if _, _, err := r.Register(ctx, ikey(fmt.Sprintf("s%d", s), fmt.Sprintf("i%d", i)), long); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ResetTimer()
	b.ReportAllocs()
	return r
}

func BenchmarkHeartbeat(b *testing.B) {
	r := benchBed(b, 1000)
	b.RunParallel(func(pb *testing.PB) {
		k := ikey("s7", "i3")
		for pb.Next() {
			if _, err := r.Heartbeat(context.Background(), k, 0); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkResolve(b *testing.B) {
	r := benchBed(b, 1000)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, _, err := r.Resolve(context.Background(), ResolveQuery{Service: "s7", Zone: "a"}); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkRegister(b *testing.B) {
	r := benchBed(b, 1000)
	i := 0
	for b.Loop() {
		i++
		in := reg()
		in.Port = 1 + i%60000
		if _, _, err := r.Register(context.Background(), ikey("s7", "i3"), in); err != nil {
			b.Fatal(err)
		}
	}
}
