package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// suggestBudget is the longest that asking for similar names may take.
const suggestBudget = time.Second

// mostKnown is how many names are few enough to list them all.
const mostKnown = 10

// didYouMean adds similar names to a "not found" about a service or region. It asks the
// registry for the names there are; when that fails, err is as good as it was.
func (s *session) didYouMean(ctx context.Context, err error, service, region string) error {
	var ae *api.Error
	if !errors.As(err, &ae) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, suggestBudget)
	defer cancel()
	var (
		known []string
		name  string
	)
	switch ae.Code {
	case api.CodeServiceNotFound:
		name, known = service, s.serviceNames(ctx)
	case api.CodeRegionNotFound:
		name, known = region, s.regionNames(ctx)
	default:
		return err
	}
	return withHints(err, name, known)
}

// didYouMeanInstance is didYouMean for an instance that is to be changed. What the registry
// says then is for the program itself, so it is left out where there is something better.
func (s *session) didYouMeanInstance(ctx context.Context, err error, service, id string) error {
	var ae *api.Error
	if !errors.As(err, &ae) || ae.Code != api.CodeInstanceNotFound {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, suggestBudget)
	defer cancel()
	plain := asCLI(err)
	plain.remedy = "\"nearside instances " + s.nsFlag() + service + "\" lists those that are there"
	if ids := s.instanceIDs(ctx, service); len(ids) > 0 {
		return withHints(plain, id, ids)
	}
	plain.remedy = "\"nearside services\" lists the services of the namespace " + string(s.ns)
	return withHints(plain, service, s.serviceNames(ctx))
}

// withHints adds what was probably meant by name to err.
func withHints(err error, name string, known []string) error {
	if name == "" || len(known) == 0 {
		return err
	}
	var hints []string
	if near := similar(name, known); len(near) > 0 {
		hints = append(hints, "did you mean "+quotedList(near)+"?")
	}
	e := asCLI(err)
	// Some refusals name them already.
	if names := strings.Join(known, ", "); len(known) <= mostKnown && !strings.Contains(e.remedy, names) {
		hints = append(hints, "known: "+names)
	}
	if len(hints) == 0 {
		return err
	}
	e.remedy = strings.TrimSpace(strings.Join(hints, " ") + "\n" + e.remedy)
	return e
}

func (s *session) instanceIDs(ctx context.Context, service string) []string {
	list, _, err := s.allInstances(ctx, api.ServiceName(service), listFlags{limit: api.MaxListLimit})
	if err != nil {
		return nil
	}
	ids := make([]string, 0, len(list.Instances))
	for _, in := range list.Instances {
		ids = append(ids, string(in.ID))
	}
	return ids
}

func (s *session) serviceNames(ctx context.Context) []string {
	list, _, err := s.allServices(ctx)
	if err != nil && len(list.Services) == 0 {
		return nil
	}
	names := make([]string, 0, len(list.Services))
	for _, c := range list.Services {
		names = append(names, string(c.Service))
	}
	return names
}

func (s *session) regionNames(ctx context.Context) []string {
	var list api.RegionList
	if _, err := s.client.get(ctx, api.PathRegions, nil, &list); err != nil {
		return nil
	}
	names := make([]string, 0, len(list.Regions))
	for _, r := range list.Regions {
		names = append(names, string(r.Region))
	}
	return names
}

// similar returns at most three of known that name was probably meant to be, best first.
func similar(name string, known []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	most := 1 + len(name)/4
	var found []candidate
	for _, k := range known {
		d := distance(name, k)
		if d > most && len(name) >= 3 && strings.HasPrefix(k, name) {
			d = most
		}
		if d <= most && k != name {
			found = append(found, candidate{k, d})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int {
		if a.distance != b.distance {
			return a.distance - b.distance
		}
		return strings.Compare(a.name, b.name)
	})
	var out []string
	for _, c := range found[:min(3, len(found))] {
		out = append(out, c.name)
	}
	return out
}

// distance is the number of letters to insert, delete, replace or swap with their
// neighbour that turn a into b.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

func quotedList(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(quoted, " or ")
}
