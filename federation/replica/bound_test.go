package replica

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// allocated returns how many bytes a function makes.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// fill repeats an element until a list of it is n bytes long.
func fill(element string, n int) string {
	return "[" + strings.Repeat(element+",", (n-len(element))/(len(element)+1)) + element + "]"
}

// P8, failure 48: what a stranger sends does not become a hundred times as much in memory.
func TestListsOfNothingTakeNoMemory(t *testing.T) {
	const epoch = `"epoch":"3-0000000000000001"`
	for name, line := range map[string]string{
		"standings":    `{"kind":"heartbeat",` + epoch + `,"standings":` + fill("0", MaxFrameBytes-200) + `}`,
		"rows":         `{"kind":"delta",` + epoch + `,"to":5,"rows":` + fill("{}", MaxFrameBytes-200) + `}`,
		"in two parts": `{"kind":"delta",` + epoch + `,"standings":` + fill("{}", MaxFrameBytes/2-200) + `,"standings":` + fill("{}", MaxFrameBytes/2-200) + `}`,
		"certificates": `{"kind":"hello",` + epoch + `,"chain":` + fill(`""`, MaxFrameBytes-200) + `}`,
	} {
		var err error
		if n := allocated(func() { _, err = Decode([]byte(line)) }); err == nil || n > 32<<20 {
			t.Errorf("%s: %d MiB, %v", name, n>>20, err)
		}
	}
	for name, body := range map[string]string{
		"endpoints":      `{"namespace":"default","service":"s00","endpoints":` + fill("0", 3<<20) + `}`,
		"endpoints that": `{"namespace":"default","service":"s00","endpoints":` + fill("{}", MaxRowBytes-100) + `}`,
		"versions":       `{"namespace":"default","service":"s00","versions":` + fill(`""`, MaxRowBytes-100) + `}`,
		"bytes":          `{"namespace":"default","service":"s00","of_a_later_version":"` + strings.Repeat("x", MaxRowBytes) + `"}`,
	} {
		o, r := synced(t, 1)
		was := r.View().Table.Get(key("s00"))
		f := Frame{Kind: Delta, Epoch: o.epoch, From: r.Have().Revision, To: r.Have().Revision + 1, Rows: []Row{{Revision: 9, Body: json.RawMessage(body)}}}
		f.Digest = r.View().Digest.Remove(was.Hash).Add(summary.HashOf([]byte(body)))
		var eff Effects
		n := allocated(func() { eff = r.Step(f, start) })
		if eff.Err != nil || eff.Refused != RefusedRow || n > 32<<20 {
			t.Errorf("%s: %d MiB, %+v", name, n>>20, eff)
			continue
		}
		if e := r.View().Table.Get(key("s00")); e.Summary == nil || e.Summary != was.Summary || e.Quarantined == "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// P8: a row does not count more zones apart than a region has, nor does ours.
func TestZonesAreBounded(t *testing.T) {
	s := api.Summary{Namespace: "default", Service: "orders", Zones: map[api.Zone]api.ZoneCount{}}
	for i := range summary.MaxZones + 1 {
		s.Zones[api.Zone(fmt.Sprintf("z%d", i))] = api.ZoneCount{}
	}
	body, _ := summary.Encode(&s)
	if _, e, err := readRow("eu-west", Row{Body: body}); err != nil || e.Quarantined == "" {
		t.Errorf("%v %+v", err, e)
	}
	var instances []*api.Instance
	for i := range summary.MaxZones + 200 {
		instances = append(instances, &api.Instance{
			Namespace: "default", Service: "orders", ID: api.InstanceID(fmt.Sprintf("i%d", i)), Region: "eu-west", Zone: api.Zone(fmt.Sprintf("z%d", i)),
			Address: "10.0.0.1", Port: 80, Weight: 100, Status: api.StatusPassing,
		})
	}
	ours := summary.Build(s.Key(), instances, 5, "us-east")
	body, _ = summary.Encode(ours)
	if _, e, err := readRow("eu-west", Row{Body: body}); err != nil || e.Quarantined != "" || len(ours.Zones) != summary.MaxZones || ours.Passing != len(instances) {
		t.Errorf("%d zones of ours, %v %+v", len(ours.Zones), err, e)
	}
}

// The widest row that we tell ourselves is taken.
func TestWidestRowIsTaken(t *testing.T) {
	var instances []*api.Instance
	for i := range summary.MaxZones {
		x := &api.Instance{
			Namespace: "default", Service: "orders", ID: api.InstanceID(fmt.Sprintf("%0128d", i)), Region: "eu-west", Zone: api.Zone(fmt.Sprintf("z%062d", i)),
			Address: strings.Repeat("a.", 120) + "example", Port: 65535, Weight: 100, Status: api.StatusPassing, Version: fmt.Sprintf("%064d", i),
			Metadata: map[string]string{"k": strings.Repeat(",", 4000)}, Ports: map[string]int{},
		}
		for p := range api.MaxPorts {
			x.Ports[fmt.Sprintf("p%062d", p)] = 60000 + p
		}
		instances = append(instances, x)
	}
	body, _ := summary.Encode(summary.Build(api.ServiceKey{Namespace: "default", Service: "orders"}, instances, 5, "us-east"))
	if _, e, err := readRow("eu-west", Row{Body: body}); err != nil || e.Quarantined != "" {
		t.Errorf("%d bytes: %v %+v", len(body), err, e)
	}
}

// P8: names in a greeting are names.
func TestNamesInAGreetingAreBounded(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for name, f := range map[string]Frame{
		"node": {Node: long}, "stream": {Stream: long}, "escapes": {Node: "\x1b[31m"}, "chain": {Chain: [][]byte{make([]byte, 1<<20)}},
	} {
		f.Kind, f.Proto, f.Region, f.Epoch = Hello, 2, "eu-west", api.Epoch{Generation: 1, Nonce: 1}
		line, _ := json.Marshal(f)
		if _, err := Decode(line); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
