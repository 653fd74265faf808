package forge_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/nearside/nearside/federation/internal/forge"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// The attack works against hash and digest, and not against what is signed: otherwise the tests that use it would
// show nothing.
func TestRow(t *testing.T) {
	good := []byte(`{"ns":"default","service":"orders","total":1,"passing":1,"endpoints":[{"id":"a","address":"10.0.0.1","port":80,"region":"eu-west","weight":100,"status":"passing","tier":0}]}`)
	out, ok := forge.Row(good, bytes.Replace(good, []byte("10.0.0.1"), []byte("10.6.6.6"), 1))
	if !ok {
		t.Fatal("no row was found")
	}
	var s api.Summary
	if err := json.Unmarshal(out, &s); err != nil || s.Endpoints[0].Address != "10.6.6.6" {
		t.Fatalf("%s: %v", out, err)
	}
	if summary.HashOf(out) != summary.HashOf(good) || summary.SumOf(out) == summary.SumOf(good) {
		t.Fatalf("%s", out)
	}
}
