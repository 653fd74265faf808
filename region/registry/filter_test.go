package registry

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// A filter picks instances of this region and of another one's summary, page by page; one
// that cannot be read is refused, and so is one whose caller may not read at all (P12).
func TestInstancesAreFiltered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		for i := range 20 {
			r := reg()
			r.Tags = []string{fmt.Sprintf("even-%v", i%2 == 0)}
			r.Metadata = map[string]string{"n": fmt.Sprint(i)}
			if _, _, err := b.Register(t.Context(), ikey("orders", fmt.Sprintf("i%02d", i)), r); err != nil {
				t.Fatal(err)
			}
		}
		q := InstancesQuery{Service: "orders", Filter: `"even-true" in Tags and Metadata.n matches "^1"`, Limit: 2}
		var got []string
		for {
			list, _, err := b.ListInstances(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, in := range list.Instances {
				got = append(got, string(in.ID))
			}
			if q.Cursor = list.Cursor; q.Cursor == "" {
				break
			}
		}
		if s := strings.Join(got, " "); s != "i10 i12 i14 i16 i18" {
			t.Error(s)
		}
		_, _, err := b.ListInstances(t.Context(), InstancesQuery{Service: "orders", Filter: "Colour == red"})
		b.wantCode(err, api.CodeInvalidField)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if list, _, err := b.ListInstances(gone, q); err == nil {
			t.Errorf("half a list for a caller that left: %+v", list)
		}
	})
}
