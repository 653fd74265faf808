package etcdchild

import (
	"bytes"
	"encoding/json"
	"testing"
)

// FuzzReports: whatever a child says on its standard output, it is read to its end; what is no report
// is kept, up to a bound, for the case that it dies.
func FuzzReports(f *testing.F) {
	for _, s := range []string{
		`{"waiting":true}` + "\n" + `{"ready":{"endpoint":"unix:///x"}}` + "\n", "panic: x\n\ngoroutine 1 [running]:\n", `{"failed":{"kind":"no such","text":"x"}}`,
		`{"space":{}}` + "\n\xff\n[]\nnull\n1\n", `{"ended":null,"failed":{"text":1}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &child{words: &lastWords{}, reports: make(chan report)}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.listen(bytes.NewReader(b))
		}()
		for n := 0; ; n++ {
			select {
			case m := <-c.reports:
				for _, err := range []*failure{m.Failed, m.Ended} {
					if err != nil && err.Error() != err.Text {
						t.Fatalf("%+v", err)
					}
				}
				if n > len(b) {
					t.Fatalf("%d reports in %d bytes", n, len(b))
				}
				continue
			case <-ended:
			}
			break
		}
		if _, all := c.words.cause(); len(all) > maxLastWords {
			t.Fatalf("%d bytes are kept", len(all))
		}
	})
}

// FuzzOrders: orders are read as they were given, or not at all.
func FuzzOrders(f *testing.F) {
	f.Add([]byte(`{"member":{},"log_level":"INFO"}`))
	f.Add([]byte(`{"member":{"Region":"eu-west","Node":"n1","DataDir":"/x"},"log_level":"DEBUG+1"}`))
	f.Add([]byte(`{"log_level":9}`))
	f.Add([]byte("null"))
	read := func(b []byte) (o orders, err error) {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		return o, d.Decode(&o)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := read(b)
		if err != nil {
			return
		}
		given, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		back, err := read(given)
		if err != nil {
			t.Fatalf("%s was given and cannot be read: %v", given, err)
		}
		if again, _ := json.Marshal(back); !bytes.Equal(given, again) {
			t.Fatalf("%s became %s", given, again)
		}
	})
}
