package nearside

import (
	"fmt"
	"testing"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// A service that says it is settled has its answer: a call in that very moment must not
// find nothing.
func TestSettledServicesHaveAnAnswer(t *testing.T) {
	c, err := New(Config{Addresses: []string{"http://127.0.0.1:1"}, Region: "us"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	v := route.View{Key: api.ServiceKey{Namespace: api.DefaultNamespace, Service: "orders"}}
	r := route.RegionView{Origin: api.Origin{Region: "us"}}
	for i := range 500 { // enough to make the decision take a while
		r.Endpoints = append(r.Endpoints, api.Endpoint{ID: api.InstanceID(fmt.Sprint(i)), Region: "us", Status: api.StatusPassing, Weight: 100, Address: "h", Port: 80})
	}
	v.Regions = []route.RegionView{r}
	for range 50 {
		s := newService(c, nil, v.Key)
		settled := make(chan bool)
		go func() {
			for !s.settled.Load() {
				select {
				case <-c.ctx.Done():
				default:
				}
			}
			settled <- s.answer.Load() != nil
		}()
		s.show(knowledge{view: v, home: "us"}, true)
		if !<-settled {
			t.Fatal("settled, and no answer")
		}
	}
}
