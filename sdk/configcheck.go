package nearside

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// leastPollInterval keeps a program from asking its registry all the time.
const leastPollInterval = 100 * time.Millisecond

// checkValues refuses what could only fail later, and far from its cause.
func (cfg *Config) checkValues() error {
	if strings.ContainsFunc(cfg.Token, func(r rune) bool { return r < 0x20 || r >= 0x7f }) {
		return errors.New("nearside: Config.Token has a character that no header can carry, such as the line break at the end of a file: trim it")
	}
	if math.IsNaN(cfg.RetryBudget) {
		return errors.New("nearside: Config.RetryBudget is not a number: use a share of the calls, 0.1 is a tenth")
	}
	if cfg.PollInterval > 0 && cfg.PollInterval < leastPollInterval {
		return fmt.Errorf("nearside: Config.PollInterval is %s: use %s or more, or 0 for %s", cfg.PollInterval, leastPollInterval, defaultPollInterval)
	}
	if err := checkPolicy(cfg.Policy); err != nil {
		return fmt.Errorf("nearside: Config.Policy: %w", err)
	}
	for name, sc := range cfg.Services {
		if err := checkPolicy(sc.Policy); err != nil {
			return fmt.Errorf("nearside: Config.Services[%q].Policy: %w", name, err)
		}
	}
	return nil
}

// checkPolicy refuses names that are no region's: a typing error would forbid all regions, or
// be passed over. Whether there is such a region, nobody knows before it is heard of.
func checkPolicy(p route.Policy) error {
	for field, list := range map[string][]api.Region{"Allowed": p.Allowed, "Order": p.Order} {
		for _, r := range list {
			if err := api.CheckRegion(string(r)); err != nil {
				return fmt.Errorf("%s: %w", field, err)
			}
		}
	}
	return nil
}

// checkPlace refuses what is wrong with the port and path of a base URL.
func checkPlace(u *url.URL) error {
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("nearside: address of %s: port %s is out of range: use 1 to 65535", u.Hostname(), p)
		}
	}
	if strings.HasSuffix(u.Path, "/v1") {
		return fmt.Errorf("nearside: address %s ends in /v1: leave that out, the client adds it", api.Quote(u.String()))
	}
	return nil
}
