package node

import (
	"net/url"
	"slices"

	"github.com/nearside/nearside/sdk/api"
)

// normalizeBeside checks what a federation needs that runs as a process of its own, and that
// nobody else is given it.
func (c *Config) normalizeBeside() error {
	if c.Regional() {
		if len(c.RegionURLs) > 0 {
			return usage("drop it, or leave region out of --roles",
				"--region-url is for a federation that follows the nodes of its region, and this is one of those nodes")
		}
		return nil
	}
	if len(c.RegionURLs) == 0 {
		return usage("name the API of one or more of the region's nodes with --region-url, such as --region-url https://10.0.0.1:7400",
			"--roles federation: a federation on its own follows the nodes of its region, and none is given")
	}
	for _, other := range []struct {
		flag  string
		given bool
	}{
		{"--cluster", len(c.Cluster) > 0}, {"--etcd-endpoints", len(c.EtcdEndpoints) > 0}, {"--check-allow-cidr", len(c.CheckAllowCIDR) > 0}, {"--zone", c.Zone != ""},
	} {
		if other.given {
			return usage("drop it, or add region to --roles", "%s is for the nodes of a region, and --roles leaves the region out", other.flag)
		}
	}
	for i, raw := range c.RegionURLs {
		u, err := url.Parse(raw)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
			return usage("write it like --region-url https://10.0.0.1:7400", "--region-url: %s is not a base URL", api.Quote(raw))
		}
		if slices.Contains(c.RegionURLs[:i], raw) {
			return usage("keep one of them", "--region-url: %s is named twice", raw)
		}
		if u.Scheme == "http" && !c.Dev && !isLoopback(u.Hostname()) {
			return usage("use https", "--region-url: %s would send the token over the network without TLS", raw)
		}
		if u.Scheme == "https" && c.Dev {
			return usage("use http, or drop --dev and give certificates", "--region-url: %s has TLS, and --dev has none", raw)
		}
	}
	if !c.Dev && c.TokenFile == "" {
		return usage("give the token file of the region's nodes with --token-file",
			"--roles federation: the region's nodes answer only who shows their token, and none is given")
	}
	return nil
}
