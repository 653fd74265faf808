package cli

import (
	"reflect"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

func TestSimilar(t *testing.T) {
	known := []string{"orders", "payments", "storefront", "users", "eu-west", "eu-east", "us-east"}
	for name, want := range map[string][]string{
		"order":    {"orders"},
		"odrers":   {"orders"},
		"paymnets": {"payments"},
		"pay":      {"payments"},
		"eu-wset":  {"eu-west"},
		"eu-est":   {"eu-east", "eu-west"},
		"zzz":      nil,
		"orders":   nil,
	} {
		if got := similar(name, known); !reflect.DeepEqual(got, want) {
			t.Errorf("similar(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	unknownService := problemReply(&api.Error{Code: api.CodeServiceNotFound, Detail: `service "order" is not known`, Remedy: "check the name"})
	unknownRegion := problemReply(&api.Error{Code: api.CodeRegionNotFound, Detail: `region "eu-wset" is not known`})
	node := newNode(t, map[string]reply{
		"GET /v1/services":                                 {body: serviceList},
		"GET /v1/regions":                                  {body: regionList},
		"GET /v1/resolve/order":                            unknownService,
		"GET /v1/explain/order":                            unknownService,
		"GET /v1/services/order/instances":                 unknownService,
		"GET /v1/regions/eu-wset":                          unknownRegion,
		"GET /v1/explain/orders?from=eu-wset":              unknownRegion,
		"GET /v1/services/orders/instances?region=eu-wset": unknownRegion,
	})
	for _, args := range [][]string{{"resolve", "order"}, {"explain", "order"}, {"services", "order"}} {
		r := run(t, node.URL, args...)
		wantCode(t, r, ExitNotFound)
		wantText(t, "stderr", r.stderr, `
error: service "order" is not known
  did you mean "orders"? known: orders, payments
  check the name
  (code service_not_found, request req-1)
`)
	}
	for _, args := range [][]string{{"regions", "eu-wset"}, {"explain", "orders", "--from", "eu-wset"}, {"instances", "orders", "--region", "eu-wset"}} {
		r := run(t, node.URL, args...)
		wantCode(t, r, ExitNotFound)
		wantContains(t, "stderr", r.stderr, `did you mean "eu-west"? known: eu-west, us-east`)
	}
}

// Asking for similar names is a courtesy: when it fails the first error stands as it was.
func TestDidYouMeanBestEffort(t *testing.T) {
	node := newNode(t, map[string]reply{"GET /v1/regions/eu-wset": problemReply(api.Errorf(api.CodeRegionNotFound, "no such region"))})
	r := run(t, node.URL, "regions", "eu-wset")
	wantCode(t, r, ExitNotFound)
	wantText(t, "stderr", r.stderr, "error: no such region\n  (code region_not_found, request req-1)\n")
}

// A refusal that names what is known is not told twice what is known.
func TestHintsAreToldOnce(t *testing.T) {
	for remedy, want := range map[string]string{
		"known are eu-west, us-east":        "did you mean \"eu-west\"?\nknown are eu-west, us-east",
		"GET /v1/regions lists the regions": "did you mean \"eu-west\"? known: eu-west, us-east\nGET /v1/regions lists the regions",
	} {
		err := &api.Error{Code: api.CodeRegionNotFound, Detail: "region \"eu-wset\" is not known here", Remedy: remedy}
		if got := asCLI(withHints(err, "eu-wset", []string{"eu-west", "us-east"})).remedy; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
