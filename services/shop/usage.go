package shop

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/nearside/nearside/sdk/api"
)

// usageError is a setting that cannot be; its exit code is the one of wrong usage.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

// ExitCode returns 2.
func (e *usageError) ExitCode() int { return 2 }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// parseServices reads "all" or a list of names, and returns them without repeats in the
// order of Services.
func parseServices(list []string) ([]string, error) {
	known := Services()
	if len(list) == 0 || slices.Equal(list, []string{"all"}) {
		return known, nil
	}
	for _, name := range list {
		if !slices.Contains(known, name) {
			return nil, usagef("service %s is not known; use \"all\" or some of %s", api.Quote(name), strings.Join(known, ","))
		}
	}
	return slices.DeleteFunc(known, func(name string) bool { return !slices.Contains(list, name) }), nil
}

// checkHome validates what both commands need to know of the home region. A registry may
// only be left out where a snapshot can stand in for it.
func checkHome(region api.Region, zone api.Zone, registry []string, snapshotDir string) error {
	if region == "" {
		return usagef("the region is missing; say where this runs: --region eu-west")
	}
	if err := api.CheckRegion(string(region)); err != nil {
		return usagef("%v", err)
	}
	if err := api.CheckZone(string(zone)); err != nil {
		return usagef("%v", err)
	}
	if len(registry) == 0 && snapshotDir == "" {
		return usagef("the registry is missing; name a node of region %s: --registry http://127.0.0.1:7400", region)
	}
	for _, raw := range registry {
		u, err := url.Parse(raw)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return usagef("registry %s is not the base URL of a node; use one like http://127.0.0.1:7400", api.Quote(raw))
		}
	}
	return nil
}
