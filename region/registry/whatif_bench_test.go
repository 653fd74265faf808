package registry

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// manyReplicas is a federation of two regions with many services, as quick as the real one.
type manyReplicas struct {
	*fakeReplicas
	origins []api.Origin
	rows    map[api.ServiceKey][]api.Replica
	lists   map[api.Region][]*api.Summary
}

func (m *manyReplicas) Origins() []api.Origin                   { return m.origins }
func (m *manyReplicas) Lookup(key api.ServiceKey) []api.Replica { return m.rows[key] }
func (m *manyReplicas) Services(r api.Region) []*api.Summary    { return m.lists[r] }

func newManyReplicas(services int) *manyReplicas {
	m := &manyReplicas{fakeReplicas: newReplicas("us-east", "ap-south"), rows: map[api.ServiceKey][]api.Replica{}, lists: map[api.Region][]*api.Summary{}}
	m.origins = m.fakeReplicas.Origins()
	for i := range services {
		key := api.ServiceKey{Namespace: "default", Service: api.ServiceName(fmt.Sprintf("s%06d", i))}
		for _, o := range m.origins {
			s := &api.Summary{Namespace: "default", Service: key.Service, Total: 4, Passing: 4, Complete: true, Revision: 1}
			for n := range 4 {
				s.Endpoints = append(s.Endpoints, api.Endpoint{ID: api.InstanceID(fmt.Sprint(n)), Address: "10.9.0.1", Port: 80, Region: o.Region, Zone: "z", Weight: 100, Status: api.StatusPassing})
			}
			m.rows[key] = append(m.rows[key], api.Replica{Origin: o, Summary: s})
			m.lists[o.Region] = append(m.lists[o.Region], s)
		}
	}
	for _, list := range m.lists {
		slices.SortFunc(list, func(a, b *api.Summary) int { return catalog.CompareKeys(a.Key(), b.Key()) })
	}
	return m
}

// BenchmarkWhatIf asks what losing a region does to 100,000 services of three regions, four instances each in
// two of them: it ends within whatIfBudget, with or without having come to all.
func BenchmarkWhatIf(b *testing.B) {
	const services = 100_000
	many := newManyReplicas(services)
	st, err := memstore.New("eu-west")
	if err != nil {
		b.Fatal(err)
	}
	r, err := New(Config{Region: "eu-west", Store: st, Replicas: many})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	defer func() { stop(); <-ended }()
	<-r.Loaded()
	looked, longest := 0, time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		begin := time.Now()
		w, _, err := r.WhatIf(ctx, WhatIfQuery{Losses: lose("us-east")})
		if err != nil {
			b.Fatal(err)
		}
		looked, longest = w.Counts.Services, max(longest, time.Since(begin))
	}
	b.ReportMetric(float64(looked), "services")
	b.ReportMetric(longest.Seconds(), "longest-s")
	b.ReportMetric(0, "ns/op")
}
