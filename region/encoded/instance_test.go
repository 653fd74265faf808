package encoded_test

import (
	"bytes"
	"encoding/json"
	"math/rand"
	"reflect"
	"testing"
	"testing/quick"
	"time"

	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/sdk/api"
)

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

// What is written by hand is byte for byte what encoding/json writes, whichever fields are there.
func TestInstanceIsWhatEncodingJSONMakes(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	// What quick cannot make up, times above all, is put in here.
	check := func(texts [10]string, numbers [4]int, ports map[string]int, tags []string, metadata map[string]string, incarnation, revision uint64, ttl int64, overdue bool) bool {
		in := api.Instance{
			Namespace: api.Namespace(texts[0]), Service: api.ServiceName(texts[1]), ID: api.InstanceID(texts[2]), Region: api.Region(texts[3]), Zone: api.Zone(texts[4]),
			Address: texts[5], Port: numbers[0], Ports: ports, Weight: numbers[1], Capacity: numbers[2], Version: texts[6], Tags: tags, Metadata: metadata,
			TTL: api.Duration(ttl), Incarnation: incarnation, Status: api.Status(texts[7]), StatusNote: texts[8], Overdue: overdue, Revision: revision,
		}
		if rnd.Intn(4) > 0 {
			in.StatusSince = time.UnixMilli(rnd.Int63n(1 << 42)).UTC()
			in.RegisteredAt = time.Unix(rnd.Int63n(1<<32), rnd.Int63n(1e9)).In(time.FixedZone("x", 60*rnd.Intn(700)))
		}
		switch rnd.Intn(3) {
		case 0:
			in = api.Instance{Ports: map[string]int{}, Tags: []string{}, Metadata: map[string]string{"": texts[0]}, Checks: []api.Check{}}
		case 1:
			in.Checks = []api.Check{{Name: texts[9], Kind: "http"}}
			in.CheckResults = []api.CheckResult{{Name: texts[9], Note: texts[0], Since: in.StatusSince}, {}}
			in.Set, in.BeforeDrain = &api.SetStatus{Status: "warning", Note: texts[1]}, &api.SetStatus{}
		}
		got, err := encoded.AppendInstance(nil, &in)
		if want := marshal(t, &in); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v\n%s\nwant %s", err, got, want)
			return false
		}
		record, err := encoded.AppendRecord([]byte("before"), 7, &in)
		want := marshal(t, struct {
			V int `json:"v"`
			api.Instance
		}{7, in})
		if err != nil || !bytes.Equal(record, append([]byte("before"), want...)) {
			t.Errorf("%v\n%s\nwant %s", err, record, want)
			return false
		}
		return true
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 1000, Rand: rnd}); err != nil {
		t.Error(err)
	}
}

// A time that JSON cannot tell is an error here too, not a record that cannot be read.
func TestInstanceWithATimeThatCannotBeTold(t *testing.T) {
	in := api.Instance{StatusSince: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)}
	if b, err := encoded.AppendInstance(nil, &in); err == nil {
		t.Errorf("%s", b)
	}
}

// A field that the nouns gain must be written here as well.
func TestInstanceHasTheFieldsThatAreWritten(t *testing.T) {
	if n := reflect.TypeFor[api.Instance]().NumField(); n != 25 {
		t.Errorf("api.Instance has %d fields; appendFields and the test above know 25", n)
	}
}
