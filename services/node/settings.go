package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/sdk/api"
)

// settings binds one flag set to a Config. Values come from the flag, else the
// environment (NEARSIDE_<FLAG>), else the file, else the default.
type settings struct {
	flags *pflag.FlagSet
	cfg   Config
	file  string
	peers []string
	// complete, of the verb, fills in what is still empty after flag, environment and file.
	complete func(*Config) error
}

func newSettings(flags *pflag.FlagSet) *settings {
	s := &settings{flags: flags}
	c := &s.cfg
	flags.SortFlags = false
	c.StoreQuota = etcdnode.DefaultQuota
	flags.StringVarP(&s.file, "config", "c", "", "YAML file with these settings, keyed by flag name")
	flags.StringVar((*string)(&c.Region), "region", "", "name of this region (required)")
	flags.StringVar((*string)(&c.Zone), "zone", "", "zone of this node")
	flags.StringVar(&c.Node, "node", "", "name of this node (default REGION-1)")
	flags.StringVar(&c.DataDir, "data-dir", "", "where records are kept (default "+DefaultDataDir+"; with --dev ./nearside-data/REGION)")
	flags.StringSliceVar(&c.Roles, "roles", []string{"region", "federation"}, "what this process does: region, federation, or both; federation alone follows the region at --region-url")
	flags.StringSliceVar(&c.RegionURLs, "region-url", nil, "with --roles federation: API of a node of this region, to follow (repeatable)")
	flags.StringSliceVar(&c.FederationURLs, "federation-url", nil, "with --roles region: the region's federation process, its --federation-addr, to learn of other regions from (repeatable)")
	flags.StringVar(&c.HTTPAddr, "http-addr", DefaultHTTPAddr, "API")
	flags.StringVar(&c.FederationAddr, "federation-addr", DefaultFederationAddr, "peers: other regions' federations")
	flags.StringSliceVar(&c.Cluster, "cluster", nil, "NODE=HOST:PORT of every node of the region, this one too: 1, 3 or 5 (repeatable)")
	flags.StringVar(&c.EtcdPeerAddr, "etcd-peer-addr", "", "where the other nodes of --cluster reach this one's etcd (default "+DefaultEtcdPeerAddr+", or the port of its --cluster entry)")
	flags.Var(&c.StoreQuota, "store-quota", QuotaUsage)
	flags.StringSliceVar(&c.EtcdEndpoints, "etcd-endpoints", nil, "URLs of an external etcd, instead of one in the node (repeatable)")
	flags.StringVar(&c.EtcdCA, "etcd-ca", "", "CA of the external etcd (PEM; default the system's)")
	flags.StringVar(&c.EtcdCert, "etcd-cert", "", "certificate to show to the external etcd (PEM)")
	flags.StringVar(&c.EtcdKey, "etcd-key", "", "its private key (PEM)")
	flags.StringVar(&c.Advertise, "advertise", "", "host that others reach this node at")
	flags.StringArrayVar(&s.peers, "peer", nil, "another region's federation, REGION=URL[,URL] (repeatable)")
	flags.BoolVar(&c.Dev, "dev", false, "no TLS, no tokens; listens on this machine only")
	flags.BoolVar(&c.DevAllowRemote, "dev-allow-remote", false, "with --dev: listen beyond this machine all the same")
	flags.StringVar(&c.TLSCert, "tls-cert", "", "certificate of this node (PEM), for the API and for peers")
	flags.StringVar(&c.TLSKey, "tls-key", "", "its private key (PEM)")
	flags.StringVar(&c.TLSCA, "tls-ca", "", "CA of the federation (PEM): peers must show a certificate for REGION.region.nearside.internal")
	flags.StringVar(&c.TokenFile, "token-file", "", "file with the API token, the same on every node of a region (default in a region of one node: made at first start as DATA-DIR/token); unused with --dev")
	flags.StringSliceVar(&c.AllowedHosts, "allowed-host", nil, "further Host names that the API answers to (repeatable)")
	flags.StringSliceVar(&c.CheckAllowCIDR, "check-allow-cidr", nil, "networks that health checks may reach (repeatable; default all but loopback, link-local and the like)")
	flags.StringVar(&c.ReadyFile, "ready-file", "", "written when the node is ready: JSON with every address and the pid")
	flags.DurationVar(&c.StopDelay, "stop-delay", DefaultStopDelay, "how long a node that was told to stop goes on serving, not ready (with --dev none)")
	flags.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&c.LogFormat, "log-format", "text", "text or json")
	flags.StringVar(&c.GRPCAddr, "grpc-addr", DefaultGRPCAddr, "xDS (not in this version)")
	flags.StringVar(&c.DNSAddr, "dns-addr", DefaultDNSAddr, "DNS (not in this version)")
	flags.StringVar(&c.ConsulAddr, "consul-addr", "", "Consul API (not in this version)")
	flags.StringVar(&c.EurekaAddr, "eureka-addr", "", "Eureka API (not in this version)")
	flags.DurationVar(&c.TestCompactEvery, "test-compact-every", 0, "for tests, with --dev: the store forgets its history this often")
	flags.IntVar(&c.TestHistory, "test-history", 0, "for tests, with --dev: changes kept for watches that resume")
	flags.IntVar(&c.TestMaxWatches, "test-max-watches", 0, "for tests, with --dev: watches at once")
	for _, hidden := range []string{"test-compact-every", "test-history", "test-max-watches"} {
		flags.Lookup(hidden).Hidden = true
	}
	return s
}

// resolve applies environment and file to what the flags left unset, and validates.
func (s *settings) resolve(env func(string) (string, bool)) (Config, error) {
	if v, ok := env("NEARSIDE_CONFIG"); ok && !s.flags.Changed("config") {
		s.file = v
	}
	fromFlag := map[string]bool{}
	s.flags.Visit(func(f *pflag.Flag) { fromFlag[f.Name] = true })
	fromEnv := map[string]bool{}
	var errs []error
	s.flags.VisitAll(func(f *pflag.Flag) {
		name := EnvName(f.Name)
		v, ok := env(name)
		if !ok || fromFlag[f.Name] || f.Name == "config" || f.Name == "help" {
			return
		}
		fromEnv[f.Name] = true
		values := []string{v}
		if f.Value.Type() == "stringArray" {
			values = strings.Fields(strings.ReplaceAll(v, ";", " "))
		}
		for _, v := range values {
			if err := s.flags.Set(f.Name, v); err != nil {
				errs = append(errs, usage("correct it or unset it", "environment %s: %s is not a %s", name, api.Quote(v), f.Value.Type()))
			}
		}
	})
	if err := errors.Join(errs...); err != nil {
		return Config{}, errs[0]
	}
	if s.file != "" {
		if err := s.readFile(func(flag string) bool { return fromFlag[flag] || fromEnv[flag] }); err != nil {
			return Config{}, err
		}
	}
	for _, name := range []string{"grpc-addr", "dns-addr", "consul-addr", "eureka-addr"} {
		if s.flags.Changed(name) {
			s.cfg.NoEffect = append(s.cfg.NoEffect, "--"+name)
		}
	}
	if s.cfg.Dev && !s.flags.Changed("stop-delay") {
		s.cfg.StopDelay = 0
	}
	for _, p := range s.peers {
		if err := s.cfg.addPeer(p); err != nil {
			return Config{}, err
		}
	}
	if s.complete != nil {
		if err := s.complete(&s.cfg); err != nil {
			return Config{}, err
		}
	}
	if err := s.cfg.Normalize(); err != nil {
		return Config{}, err
	}
	return s.cfg, nil
}

// EnvName is the environment variable of a flag.
func EnvName(flag string) string {
	return "NEARSIDE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func (s *settings) readFile(taken func(flag string) bool) error {
	f, err := os.Open(s.file)
	if err != nil {
		return usage("check the path given with --config", "config file: %v", err)
	}
	defer f.Close()
	var doc yaml.Node
	decoder := yaml.NewDecoder(io.LimitReader(f, 1<<20))
	if err := decoder.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return usage("correct the file", "config file %s: %v", s.file, err)
	}
	if more := new(yaml.Node); !errors.Is(decoder.Decode(more), io.EOF) {
		return usage("keep one", "config file %s has more than one document", s.file)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return usage("write one 'key: value' per line", "config file %s is not a mapping", s.file)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		name := strings.ReplaceAll(k.Value, "_", "-")
		at := fmt.Sprintf("config file %s, line %d", s.file, k.Line)
		flag := s.flags.Lookup(name)
		if name == "config" || name == "help" {
			return usage("give it on the command line", "%s: %s cannot be set in a file", at, name)
		}
		if flag == nil {
			return usage(s.suggest(name), "%s: there is no setting %s", at, api.Quote(k.Value))
		}
		if seen[name] {
			return usage("keep one of them", "%s: %s is set twice", at, api.Quote(k.Value))
		}
		seen[name] = true
		if taken(name) {
			continue
		}
		values, err := yamlValues(name, v)
		if err != nil {
			return usage("see deploy/nearside.yaml for every setting", "%s: %s %v", at, k.Value, err)
		}
		if many := flag.Value.Type() == "stringSlice" || flag.Value.Type() == "stringArray"; v.Kind == yaml.SequenceNode && !many {
			return usage("write one value", "%s: %s takes one value, not a list", at, k.Value)
		}
		for _, value := range values {
			if err := s.flags.Set(name, value); err != nil {
				return usage("correct the value", "%s: %s: %s is not a %s", at, k.Value, api.Quote(value), flag.Value.Type())
			}
		}
	}
	return nil
}

// yamlValues flattens a scalar, a list, or a map: for peer of region to URL(s), for cluster of node to address.
func yamlValues(name string, v *yaml.Node) ([]string, error) {
	switch v.Kind {
	case yaml.ScalarNode:
		if isNull(v) {
			return nil, errNull
		}
		return []string{v.Value}, nil
	case yaml.SequenceNode:
		out := make([]string, 0, len(v.Content))
		for _, e := range v.Content {
			if e.Kind != yaml.ScalarNode {
				return nil, errors.New("must be a list of plain values")
			}
			if isNull(e) {
				return nil, errNull
			}
			out = append(out, e.Value)
		}
		return out, nil
	case yaml.MappingNode:
		if name != "peer" && name != "cluster" {
			break
		}
		var out []string
		seen := map[string]bool{}
		for i := 0; i+1 < len(v.Content); i += 2 {
			key := v.Content[i].Value
			if seen[key] {
				return nil, fmt.Errorf("names %s twice", api.Quote(key))
			}
			seen[key] = true
			urls, err := yamlValues("", v.Content[i+1])
			if err != nil {
				return nil, err
			}
			out = append(out, key+"="+strings.Join(urls, ","))
		}
		return out, nil
	}
	return nil, errors.New("must be a value or a list")
}

// errNull refuses YAML's word for nothing, which would be taken for a name.
var errNull = errors.New("is null: write a value (in quotes, if it is that word), or leave the line out")

// isNull reports whether a value is null or ~; one that is left empty is just empty.
func isNull(v *yaml.Node) bool { return v.Tag == "!!null" && v.Value != "" }

// suggest names the setting that was probably meant.
func (s *settings) suggest(name string) string {
	best, bestAt := "", 3
	s.flags.VisitAll(func(f *pflag.Flag) {
		if d := distance(name, f.Name); d < bestAt {
			best, bestAt = f.Name, d
		}
	})
	if best != "" {
		return "did you mean " + best + "?"
	}
	return "nearside server --help lists them"
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := slices.Min([]int{row[j+1] + 1, row[j] + 1, prev + cost})
			prev, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
