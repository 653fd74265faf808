package sdktest

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// Instance is one copy of a service that the test registered, by Serve, ServeAs or Register.
type Instance struct {
	r      *Region
	key    api.InstanceKey
	addr   string
	server *server // nil = the test's own, or none
	calls  atomic.Int64
}

// Serve starts an HTTP server with the handler and registers it as an instance of the service
// ("orders", or "orders.namespace"). Its id is the service's name and a number. It needs no
// heartbeats, and ends with the world.
func (r *Region) Serve(service string, h http.Handler) *Instance {
	return r.ServeAs(nearside.Registration{Service: service}, h)
}

// ServeAs is Serve with more to say: an id, a zone, a weight and so on. Address, Port and
// DrainDelay of reg are not used, nor is Load: see Instance.SetLoad.
func (r *Region) ServeAs(reg nearside.Registration, h http.Handler) *Instance {
	in := &Instance{r: r}
	r.key(reg.Service, false)
	var err error
	in.server, err = startServer(r.w.net, "", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		in.calls.Add(1)
		h.ServeHTTP(w, req)
	}))
	if err != nil {
		r.w.fail("sdktest: instance of %s: %v", reg.Service, err)
	}
	r.w.atClose(in.server.kill)
	host, port, _ := net.SplitHostPort(in.server.address)
	reg.Address = host
	reg.Port, _ = strconv.Atoi(port)
	return r.register(in, reg)
}

// Register registers an instance that the test itself runs, or nobody. Address and Port are
// required. It needs no heartbeats.
func (r *Region) Register(reg nearside.Registration) *Instance {
	return r.register(&Instance{r: r}, reg)
}

func (r *Region) register(in *Instance, reg nearside.Registration) *Instance {
	service := r.key(reg.Service, false)
	in.addr = net.JoinHostPort(reg.Address, strconv.Itoa(reg.Port))
	body := api.Registration{
		Address: reg.Address, Port: reg.Port, Ports: maps.Clone(reg.Ports), Zone: reg.Zone, Capacity: reg.Capacity,
		Version: reg.Version, Tags: slices.Clone(reg.Tags), Metadata: maps.Clone(reg.Metadata), TTL: api.Duration(reg.TTL),
		Checks: slices.Clone(reg.Checks),
	}
	if reg.Weight != 0 {
		body.Weight = &reg.Weight
	}
	if reg.Starting {
		body.Status = api.StatusStarting
	}
	r.w.mu.Lock()
	id := reg.ID
	for id == "" {
		r.served++
		id = fmt.Sprintf("%s-%d", service.Service, r.served)
		if r.records[api.InstanceKey{Namespace: service.Namespace, Service: service.Service, ID: api.InstanceID(id)}] != nil {
			id = ""
		}
	}
	in.key = api.InstanceKey{Namespace: service.Namespace, Service: service.Service, ID: api.InstanceID(id)}
	err := api.CheckInstanceID(id)
	if err == nil {
		if _, _, err = r.registerLocked(in.key, body); err == nil {
			rec := r.records[in.key]
			rec.kept = true
			r.armLocked(rec)
		}
	}
	r.w.mu.Unlock()
	if err != nil {
		r.w.fail("sdktest: register %s: %v", in.key, err)
	}
	return in
}

// ID returns the instance's id.
func (i *Instance) ID() api.InstanceID { return i.key.ID }

// Region returns the region that the instance is registered in.
func (i *Instance) Region() *Region { return i.r }

// Addr returns the instance's host:port.
func (i *Instance) Addr() string { return i.addr }

// URL returns the instance's base URL, without a slash at its end.
func (i *Instance) URL() string { return "http://" + i.addr }

// Calls returns how many requests the handler of Serve or ServeAs got.
func (i *Instance) Calls() int { return int(i.calls.Load()) }

// SetStatus sets what the registry says of the instance.
func (i *Instance) SetStatus(s api.Status, note string) {
	i.r.w.mu.Lock()
	_, err := i.r.statusLocked(i.key, api.StatusChange{Status: s, Note: note})
	i.r.w.mu.Unlock()
	if err != nil {
		i.r.w.fail("sdktest: status of %s: %v", i.key, err)
	}
}

// Deregister takes the instance out of the registry; its server goes on. It is no mistake if it is gone already.
func (i *Instance) Deregister() {
	i.r.w.mu.Lock()
	defer i.r.w.mu.Unlock()
	if rec := i.r.records[i.key]; rec != nil {
		i.r.removeLocked(rec, api.CauseDeregister)
	}
}

// Kill ends the instance's server as SIGKILL does: connections are refused from now on, and
// those there are are reset. The registry does not learn of it.
func (i *Instance) Kill() { i.own("Kill").kill() }

// Hang stops the instance's server as SIGSTOP does: connections are accepted, and nothing is
// read or answered. The registry does not learn of it.
func (i *Instance) Hang() { i.own("Hang").hang() }

// Heal ends Kill or Hang. The address stays the same.
func (i *Instance) Heal() {
	if err := i.own("Heal").heal(); err != nil {
		i.r.w.fail("sdktest: instance %s does not come back: %v", i.key, err)
	}
}

func (i *Instance) own(verb string) *server {
	if i.server == nil {
		i.r.w.fail("sdktest: %s of instance %s: it was registered without a server; use Serve", verb, i.key)
	}
	return i.server
}
