package replica

import "net/url"

// usableAddresses keeps the base URLs that a client could call; what an origin tells is not
// trusted to be well-formed.
func usableAddresses(in []string) []string {
	var out []string
	for _, a := range in {
		if len(out) == MaxAddresses {
			break
		}
		if len(a) > 300 {
			continue
		}
		u, err := url.Parse(a)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
			continue
		}
		out = append(out, a)
	}
	return out
}
