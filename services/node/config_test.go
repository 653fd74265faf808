package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/nearside/nearside/services/size"
)

func parse(t *testing.T, env map[string]string, args ...string) (Config, error) {
	t.Helper()
	flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
	s := newSettings(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return s.resolve(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
}

func TestPrecedenceIsFlagEnvironmentFileDefault(t *testing.T) {
	file := filepath.Join(t.TempDir(), "n.yaml")
	if err := os.WriteFile(file, []byte("region: from-file\nzone: from-file\nnode: from-file\nlog_level: warn\npeer:\n  eu: [http://127.0.0.1:1, http://127.0.0.1:2]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"NEARSIDE_REGION": "from-env", "NEARSIDE_ZONE": "from-env", "NEARSIDE_CONFIG": file}
	c, err := parse(t, env, "--dev", "--region", "from-flag")
	if err != nil {
		t.Fatal(err)
	}
	if c.Region != "from-flag" || c.Zone != "from-env" || c.Node != "from-file" || c.LogLevel != "warn" || c.FederationAddr != "127.0.0.1:7402" {
		t.Errorf("got %+v", c)
	}
	if len(c.Peers["eu"]) != 2 {
		t.Errorf("peers %v", c.Peers)
	}
	c, err = parse(t, map[string]string{"NEARSIDE_PEER": "eu=http://127.0.0.1:9;ap=http://127.0.0.1:8", "NEARSIDE_DEV": "true"}, "--region", "us", "--peer", "sa=http://127.0.0.1:7")
	if err != nil || len(c.Peers) != 1 {
		t.Errorf("a flag does not replace the environment: %v, %v", c.Peers, err)
	}
}

func TestStoreQuotaIsReadLikeEverySetting(t *testing.T) {
	file := filepath.Join(t.TempDir(), "n.yaml")
	if err := os.WriteFile(file, []byte("store-quota: 64MiB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, x := range map[size.Bytes]struct {
		env  map[string]string
		args []string
	}{
		512 << 20: {},
		64 << 20:  {args: []string{"--config", file}},
		1 << 30:   {env: map[string]string{"NEARSIDE_STORE_QUOTA": "1GiB"}, args: []string{"--config", file}},
		32 << 20:  {env: map[string]string{"NEARSIDE_STORE_QUOTA": "1GiB"}, args: []string{"--store-quota", "32MiB"}},
	} {
		c, err := parse(t, x.env, append(x.args, "--dev", "--region", "us")...)
		if err != nil || c.StoreQuota != want {
			t.Errorf("%s (%v), want %s", c.StoreQuota, err, want)
		}
	}
	for _, args := range [][]string{{"--store-quota", "1MiB"}, {"--store-quota", "9GiB"}, {"--store-quota", "1GiB", "--etcd-endpoints", "http://127.0.0.1:2379"}} {
		_, err := parse(t, nil, append(args, "--dev", "--region", "us")...)
		var wrong *UsageError
		if !errors.As(err, &wrong) || !strings.Contains(wrong.Detail, "--store-quota") || wrong.Remedy == "" {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestDoorsThatAreNotThereAreNamed(t *testing.T) {
	c, err := parse(t, map[string]string{"NEARSIDE_GRPC_ADDR": ":1"}, "--dev", "--region", "us", "--dns-addr", ":2")
	if err != nil || len(c.NoEffect) != 2 {
		t.Errorf("%v, %v", c.NoEffect, err)
	}
}

func TestTheReferenceFileLoads(t *testing.T) {
	c, err := parse(t, nil, "--config", "../../deploy/nearside.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.Region != "us-east" || len(c.Peers) != 2 || c.LogFormat != "json" {
		t.Errorf("got %+v", c)
	}
}

// The reference names every setting that this version has.
func TestTheReferenceFileIsComplete(t *testing.T) {
	b, err := os.ReadFile("../../deploy/nearside.yaml")
	if err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
	newSettings(flags)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return // for tests only
		}
		if f.Name == "config" || strings.Contains(f.Usage, "not in this version") {
			return
		}
		if !strings.Contains("\n"+string(b), "\n"+f.Name+":") && !strings.Contains(string(b), "\n# "+f.Name+":") {
			t.Errorf("deploy/nearside.yaml does not mention %s", f.Name)
		}
	})
}

// Bad input gets a clear error that names the thing, the cause and the remedy.
func TestWrongConfigurationsAreNamed(t *testing.T) {
	write := func(content string) string {
		p := filepath.Join(t.TempDir(), "bad.yaml")
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	cases := []struct {
		name string
		env  map[string]string
		args []string
		says string
	}{
		{"no region", nil, []string{"--dev"}, "--region"},
		{"bad region", nil, []string{"--dev", "--region", "EU"}, `--region: region "EU"`},
		{"bad zone", nil, []string{"--dev", "--region", "eu", "--zone", "a_b"}, "--zone"},
		{"bad node", nil, []string{"--dev", "--region", "eu", "--node", "-"}, "--node"},
		{"bad role", nil, []string{"--dev", "--region", "eu", "--roles", "king"}, "not a role"},
		{"federation alone", nil, []string{"--dev", "--region", "eu", "--roles", "federation"}, "follows the nodes of its region, and none is given"},
		{"a federation URL for a federation", nil, []string{"--dev", "--region", "eu", "--federation-url", "http://127.0.0.1:1"}, "--roles names it"},
		{"a federation URL for the federation's process", nil, []string{"--dev", "--region", "eu", "--roles", "federation", "--region-url", "http://127.0.0.1:1", "--federation-url", "http://127.0.0.1:1"}, "--roles names it"},
		{"not a federation URL", nil, []string{"--dev", "--region", "eu", "--roles", "region", "--federation-url", "127.0.0.1:7402"}, "not a base URL"},
		{"a federation URL twice", nil, []string{"--dev", "--region", "eu", "--roles", "region", "--federation-url", "http://127.0.0.1:1,http://127.0.0.1:1"}, "named twice"},
		{"a federation URL with TLS in dev", nil, []string{"--dev", "--region", "eu", "--roles", "region", "--federation-url", "https://127.0.0.1:1"}, "--dev has none"},
		{"a federation URL in plain text", nil, []string{"--region", "eu", "--roles", "region", "--http-addr", "127.0.0.1:1", "--federation-url", "http://127.0.0.1:1"}, "would not prove"},
		{"a federation URL without certificates", nil, []string{"--region", "eu", "--roles", "region", "--http-addr", "127.0.0.1:1", "--federation-url", "https://127.0.0.1:1"}, "prove to each other"},
		{"a region URL for a node", nil, []string{"--dev", "--region", "eu", "--region-url", "http://127.0.0.1:1"}, "this is one of those nodes"},
		{"a region URL for a node without federation", nil, []string{"--dev", "--region", "eu", "--roles", "region", "--region-url", "http://127.0.0.1:1"}, "this is one of those nodes"},
		{"not a region URL", nil, []string{"--dev", "--region", "eu", "--roles", "federation", "--region-url", "127.0.0.1:7400"}, "--region-url: \"127.0.0.1:7400\" is not a base URL"},
		{"a path in a region URL", nil, []string{"--dev", "--region", "eu", "--roles", "federation", "--region-url", "http://127.0.0.1:7400/v1"}, "not a base URL"},
		{"a region URL twice", nil, []string{"--dev", "--region", "eu", "--roles", "federation", "--region-url", "http://127.0.0.1:1,http://127.0.0.1:1"}, "named twice"},
		{"TLS in a region without", nil, []string{"--dev", "--region", "eu", "--roles", "federation", "--region-url", "https://127.0.0.1:1"}, "--dev has none"},
		{"a cluster of no region", nil, []string{"--dev", "--region", "eu", "--roles", "federation", "--region-url", "http://127.0.0.1:1", "--cluster", "a=127.0.0.1:1"}, "--roles leaves the region out"},
		{"a federation without certificates", nil, []string{"--region", "eu", "--roles", "federation", "--region-url", "http://127.0.0.1:1", "--token-file", "x", "--http-addr", "127.0.0.1:1"}, "--roles federation: regions prove to each other"},
		{"a federation without a token", nil, []string{"--region", "eu", "--roles", "federation", "--region-url", "https://h:1", "--tls-cert", "x", "--tls-key", "x", "--tls-ca", "x"}, "the region's nodes answer only who shows their token"},
		{"a token in plain text", nil, []string{"--region", "eu", "--roles", "federation", "--region-url", "http://192.0.2.1:1", "--token-file", "x", "--tls-cert", "x", "--tls-key", "x", "--tls-ca", "x"}, "would send the token"},
		{"peers without federation", nil, []string{"--dev", "--region", "eu", "--roles", "region", "--peer", "us=http://127.0.0.1:1"}, "--roles leaves the federation out"},
		{"not in the cluster", nil, []string{"--dev", "--region", "eu", "--cluster", "a=127.0.0.1:1"}, "this node, eu-1, is not in it"},
		{"two nodes", nil, []string{"--dev", "--region", "eu", "--node", "a", "--cluster", "a=127.0.0.1:1,b=127.0.0.1:2"}, "names 2 nodes"},
		{"seven nodes", nil, []string{"--dev", "--region", "eu", "--node", "a", "--cluster", "a=127.0.0.1:1,b=127.0.0.1:2,c=127.0.0.1:3,d=127.0.0.1:4,e=127.0.0.1:5,f=127.0.0.1:6,g=127.0.0.1:7"}, "names 7 nodes"},
		{"a node twice", nil, []string{"--dev", "--region", "eu", "--node", "a", "--cluster", "a=127.0.0.1:1", "--cluster", "a=127.0.0.1:2"}, "named twice"},
		{"an address twice", nil, []string{"--dev", "--region", "eu", "--node", "a", "--cluster", "a=127.0.0.1:1,b=127.0.0.1:1,c=127.0.0.1:3"}, "have the same address"},
		{"a port of its own choice", nil, []string{"--dev", "--region", "eu", "--node", "a", "--cluster", "a=127.0.0.1:0"}, "not one of 1 to 65535"},
		{"every address", nil, []string{"--dev", "--region", "eu", "--node", "a", "--cluster", "a=0.0.0.0:7403"}, "none that others could dial"},
		{"no peer address", nil, []string{"--dev", "--region", "eu", "--cluster", "a"}, "not NODE=HOST:PORT"},
		{"another port", nil, []string{"--dev", "--region", "eu", "--node", "a", "--cluster", "a=127.0.0.1:1", "--etcd-peer-addr", ":0"}, "tells the others port 1"},
		{"a name to listen on", nil, []string{"--dev", "--dev-allow-remote", "--region", "eu", "--node", "a", "--cluster", "a=127.0.0.1:1", "--etcd-peer-addr", "here:1"}, "an IP address"},
		{"remote peers without TLS", nil, []string{"--dev", "--region", "eu", "--node", "a", "--cluster", "a=127.0.0.1:1,b=192.0.2.1:2,c=127.0.0.1:3"}, "on this machine only"},
		{"a cluster without certificates", nil, []string{"--region", "eu", "--http-addr", "127.0.0.1:1", "--node", "a", "--etcd-peer-addr", "127.0.0.1:7", "--cluster", "a=127.0.0.1:7"}, "prove to each other"},
		{"two kinds of store", nil, []string{"--dev", "--region", "eu", "--node", "a", "--cluster", "a=127.0.0.1:1", "--etcd-endpoints", "http://127.0.0.1:2379"}, "both given"},
		{"remote etcd without TLS", nil, []string{"--dev", "--region", "eu", "--etcd-endpoints", "http://192.0.2.1:2379"}, "without TLS"},
		{"not an endpoint", nil, []string{"--dev", "--region", "eu", "--etcd-endpoints", "127.0.0.1:2379"}, "not a base URL"},
		{"no etcd port", nil, []string{"--dev", "--region", "eu", "--etcd-endpoints", "https://etcd"}, "has no port"},
		{"mixed endpoints", nil, []string{"--dev", "--region", "eu", "--etcd-endpoints", "https://127.0.0.1:1,http://127.0.0.1:2"}, "some are https"},
		{"a CA for nothing", nil, []string{"--dev", "--region", "eu", "--etcd-ca", "x"}, "for an external etcd"},
		{"half a certificate", nil, []string{"--dev", "--region", "eu", "--etcd-endpoints", "https://127.0.0.1:1", "--etcd-cert", "x"}, "belong together"},
		{"not an address", nil, []string{"--dev", "--region", "eu", "--http-addr", "7400"}, "not HOST:PORT"},
		{"not a port", nil, []string{"--dev", "--region", "eu", "--dns-addr", "127.0.0.1:dns"}, "out of range"},
		{"same address", nil, []string{"--dev", "--region", "eu", "--http-addr", "127.0.0.1:7402"}, "different ports"},
		{"remote dev", nil, []string{"--dev", "--region", "eu", "--http-addr", "192.0.2.1:7400"}, "--dev-allow-remote"},
		{"no TLS", nil, []string{"--region", "eu"}, "without TLS"},
		{"half TLS", nil, []string{"--region", "eu", "--http-addr", "127.0.0.1:1", "--federation-addr", "127.0.0.1:2", "--tls-cert", "x"}, "belong together"},
		{"remote without dev", nil, []string{"--region", "eu", "--dev-allow-remote"}, "nothing without --dev"},
		{"peers without certificates", nil, []string{"--region", "eu", "--http-addr", "127.0.0.1:1", "--peer", "us=https://h:1"}, "prove to each other"},
		{"a host with a port", nil, []string{"--dev", "--region", "eu", "--advertise", "node.example:7400"}, "not a host; give the host without a port"},
		{"an IPv6 address with a port", nil, []string{"--dev", "--region", "eu", "--advertise", "[::1]:7400"}, "without a port"},
		{"an IPv6 address in brackets", nil, []string{"--dev", "--region", "eu", "--advertise", "[::1]"}, "without brackets"},
		{"an address of one link", nil, []string{"--dev", "--region", "eu", "--advertise", "fe80::1%eth0"}, "not a host"},
		{"every address as one's own", nil, []string{"--dev", "--region", "eu", "--advertise", "::"}, "is every address"},
		{"null", nil, []string{"--config", write("region: eu\nzone: null\n")}, "line 2: zone is null"},
		{"null in a list", nil, []string{"--config", write("region: eu\nallowed-host: [a, ~]\n")}, "line 2: allowed-host is null"},
		{"null in a map", nil, []string{"--config", write("region: eu\npeer:\n  us: null\n")}, "peer is null"},
		{"a peer twice", nil, []string{"--config", write("region: eu\npeer:\n  us: http://127.0.0.1:1\n  us: http://127.0.0.1:2\n")}, `peer names "us" twice`},
		{"every host", nil, []string{"--dev", "--region", "eu", "--advertise", "*"}, "not a host"},
		{"own peer", nil, []string{"--dev", "--region", "eu", "--peer", "eu=http://127.0.0.1:1"}, "not its own peer"},
		{"not a peer", nil, []string{"--dev", "--region", "eu", "--peer", "us"}, "REGION=URL"},
		{"not a URL", nil, []string{"--dev", "--region", "eu", "--peer", "us=127.0.0.1:1"}, "not a base URL"},
		{"plaintext peer", nil, []string{"--region", "eu", "--http-addr", "127.0.0.1:1", "--federation-addr", "127.0.0.1:2", "--peer", "us=http://192.0.2.1:1"}, "use https"},
		{"credentials in a URL", nil, []string{"--dev", "--region", "eu", "--peer", "us=http://u:p@h:1"}, "not a base URL"},
		{"environment", map[string]string{"NEARSIDE_DEV": "maybe"}, []string{"--region", "eu"}, "NEARSIDE_DEV"},
		{"no file", nil, []string{"--config", "/nowhere/x.yaml"}, "config file"},
		{"not YAML", nil, []string{"--config", write("a: [")}, "config file"},
		{"not a mapping", nil, []string{"--config", write("- a\n")}, "not a mapping"},
		{"unknown key", nil, []string{"--config", write("region: eu\nzoone: a\n")}, "line 2: there is no setting \"zoone\"; did you mean zone?"},
		{"twice", nil, []string{"--config", write("region: eu\nregion: us\n")}, "set twice"},
		{"wrong type", nil, []string{"--config", write("region: eu\ndev: 7\n")}, "not a bool"},
		{"a list for one value", nil, []string{"--config", write("region: [eu]\n")}, "takes one value"},
		{"two documents", nil, []string{"--config", write("region: eu\n---\nregion: us\n")}, "more than one document"},
		{"a file in a file", nil, []string{"--config", write("config: x\n")}, "cannot be set in a file"},
		{"nested", nil, []string{"--config", write("region: {a: b}\n")}, "must be a value or a list"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(t, c.env, c.args...)
			var u *UsageError
			if !errors.As(err, &u) {
				t.Fatalf("got %v, want a usage error", err)
			}
			if !strings.Contains(err.Error(), c.says) || u.Remedy == "" {
				t.Errorf("%q does not say %q, or has no remedy", err, c.says)
			}
		})
	}
}

func TestConfigurationsThatAreRight(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want func(Config) bool
	}{
		"an IPv6 address":                {[]string{"--dev", "--region", "eu", "--advertise", "::1"}, func(c Config) bool { return c.Advertise == "::1" }},
		"a name with an underscore":      {[]string{"--dev", "--region", "eu", "--advertise", "node_1.internal"}, func(c Config) bool { return c.Advertise != "" }},
		"the peers' port, without peers": {[]string{"--dev", "--region", "eu", "--roles", "region", "--http-addr", "127.0.0.1:7402"}, func(c Config) bool { return c.HTTPAddr == "127.0.0.1:7402" }},
		"no certificates": {[]string{"--region", "eu", "--http-addr", "127.0.0.1:1"}, func(c Config) bool {
			return !c.Federated() && strings.Contains(c.federationOff, "without --tls-cert")
		}},
		"no CA": {[]string{"--region", "eu", "--tls-cert", "x", "--tls-key", "x"}, func(c Config) bool {
			return !c.Federated() && strings.Contains(c.federationOff, "--tls-ca is not")
		}},
		"no federation is wanted": {[]string{"--region", "eu", "--http-addr", "127.0.0.1:1", "--roles", "region"}, func(c Config) bool { return c.federationOff == "" }},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := parse(t, nil, c.args...); err != nil || !c.want(got) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// dev is server --dev with a region and a directory of its own, and nothing more: they give way to what
// is named anywhere, and only --dev itself stands.
func TestDevKeepsPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "n.yaml")
	if err := os.WriteFile(file, []byte("region: from-file\ndata-dir: /from/file\ndev: false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env         map[string]string
		args        []string
		region, dir string
	}{
		"nothing":           {nil, nil, "dev", "/temporary"},
		"a file":            {nil, []string{"-c", file}, "from-file", "/from/file"},
		"the environment":   {map[string]string{"NEARSIDE_DEV": "false", "NEARSIDE_REGION": "from-env", "NEARSIDE_DATA_DIR": "/from/env"}, []string{"-c", file}, "from-env", "/from/env"},
		"flags":             {map[string]string{"NEARSIDE_REGION": "from-env"}, []string{"--region", "from-flag", "--data-dir", "/from/flag"}, "from-flag", "/from/flag"},
		"an empty variable": {map[string]string{"NEARSIDE_REGION": "", "NEARSIDE_DATA_DIR": ""}, nil, "dev", "/temporary"},
	} {
		t.Run(name, func(t *testing.T) {
			flags := pflag.NewFlagSet("dev", pflag.ContinueOnError)
			s := newSettings(flags)
			if err := flags.Parse(c.args); err != nil {
				t.Fatal(err)
			}
			got, err := s.resolveDev(func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }, func() (string, error) { return "/temporary", nil })
			if err != nil || string(got.Region) != c.region || got.DataDir != c.dir || !got.Dev {
				t.Errorf("region %s, directory %s, dev %t, %v", got.Region, got.DataDir, got.Dev, err)
			}
		})
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add("region: eu\ndev: true\npeer:\n  us: http://127.0.0.1:1\n")
	f.Add("- x")
	f.Add("a: &a [*a]")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content string) {
		p := filepath.Join(dir, "f.yaml")
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = parse(t, nil, "--config", p)
	})
}
