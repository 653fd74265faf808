package httpapi

import (
	"reflect"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// What the quick reader takes, the strict reader takes as well, and reads the same.
func FuzzQuickRegistration(f *testing.F) {
	for _, s := range []string{
		`{"address":"10.0.0.9","port":8080,"zone":"a","ttl":"1h","tags":["v1"]}`,
		`{ "address" : "a" , "port" : 1 , "ports" : { "grpc" : 2 , "x" : 3 } , "weight" : 0 , "capacity" : 5 }`,
		`{"version":"1","metadata":{"a":"b","c":""},"incarnation":7,"status":"starting","tags":[]}`,
		`{"metadata":{},"ports":{},"weight":100}`, `{}`, `{"tags":["a","b"],}`, `{"metadata":{"a":"b",}}`, `{"metadata":{"a":"1","a":"2"}}`,
		`{"port":1,"port":2}`, `{"Port":1}`, `{"port":01}`, `{"port":1.0}`, `{"port":-1}`, `{"port":null}`, `{"ttl":15}`, `{"ttl":"15"}`, `{"ttl":"-1m"}`,
		`{"tags":"a"}`, `{"tags":[1]}`, `{"address":"ö"}`, `{"address":"\u0041"}`, `{"unknown":1}`, `{"checks":[{"kind":"http"}]}`, `{} {}`, `[]`, ``,
		`{"port":999999999999999999}`, `{"ports":{"":1}}`, `{"metadata":{"A":"1","a":"2"}}`, `{,}`, `{"a`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, ok := quickRegistration(body)
		if !ok {
			return
		}
		var want api.Registration
		if err := api.UnmarshalStrict(body, &want); err != nil {
			t.Fatalf("%q is read; the strict reader says %v", body, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %+v, want %+v", body, got, want)
		}
	})
}

// The plain form, which every client of ours sends, is read quickly.
func TestQuickRegistrationTakesThePlainForm(t *testing.T) {
	for _, s := range []string{
		`{"address":"10.0.0.9","port":8080,"zone":"a","ttl":"1h","tags":["v1"]}`,
		`{"address":"a","port":1,"ports":{"grpc":2},"weight":0,"capacity":5,"version":"1","metadata":{"a":"b"},"incarnation":7,"status":"starting"}`,
	} {
		if _, ok := quickRegistration([]byte(s)); !ok {
			t.Errorf("%s is left to the slow reader", s)
		}
	}
}
