package scenarios

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P4, P7, catalogue row 12: the region comes back with an empty disk. Its epoch changes,
// its instances register again by themselves, and nobody's safe call fails meanwhile.
func TestRestartWithTheDataDirectoryMovedAway(t *testing.T) {
	t.Parallel() // it waits more than it works
	c, _, loads := openShop(t)
	before, err := c.Node(eu).Client().Resolve("payments")
	if err != nil {
		t.Fatal(err)
	}
	c.Node(eu).Kill()
	if err := os.Rename(c.Node(eu).DataDir, c.Node(eu).DataDir+".away"); err != nil {
		t.Fatal(err)
	}
	c.Node(eu).Start()
	begun := time.Now()
	cluster.Within(t, 15*time.Second, "both payments instances of eu-west are registered again", func() error {
		l, err := c.Node(eu).Client().Instances("payments")
		if err != nil {
			return err
		}
		if len(l.Instances) != 2 {
			return fmt.Errorf("%d are", len(l.Instances))
		}
		return nil
	})
	t.Logf("all instances registered again %s after the empty start", time.Since(begun).Round(time.Millisecond))
	cluster.Within(t, 15*time.Second, "the others hold eu-west's new epoch, newer than the old one", func() error {
		now, err := c.Node(us).Client().Resolve("payments")
		if err != nil {
			return err
		}
		for _, v := range now.Views {
			if v.Region != eu {
				continue
			}
			old := before.Views[0]
			for _, b := range before.Views {
				if b.Region == eu {
					old = b
				}
			}
			if v.Epoch == old.Epoch {
				return fmt.Errorf("still %s", v.Epoch)
			}
			if o := v.Version(); o.Compare(old.Version()) != api.Newer {
				return fmt.Errorf("P4: %s is not newer than %s", v.Epoch, old.Epoch)
			}
			return nil
		}
		return fmt.Errorf("no view of eu-west")
	})
	for _, r := range []api.Region{us, eu, ap} {
		noneFailed(t, string(r), loads[r].Finish())
	}
}

// A clean stop keeps everything, ends with exit code 0, and takes no time.
func TestCleanStopAndRestartKeepsEverything(t *testing.T) {
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	n.Client().Register("orders", "o-1", api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour), Metadata: map[string]string{"k": "v"}})
	before, err := n.Client().Instances("orders")
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := n.Stop(); err != nil {
		t.Errorf("SIGTERM ended the node with %v", err)
	}
	t.Logf("stopped in %s", time.Since(begun).Round(time.Millisecond))
	n.Start()
	after, err := n.Client().Instances("orders")
	if err != nil || len(after.Instances) != 1 {
		t.Fatalf("after the restart: %+v, %v", after, err)
	}
	if a, b := after.Instances[0], before.Instances[0]; a.Revision != b.Revision || a.Metadata["k"] != "v" || !a.RegisteredAt.Equal(b.RegisteredAt) {
		t.Errorf("the instance changed over the restart: %+v, was %+v", a, b)
	}
}

// Wrong configuration is refused at start with a message that names the thing, the cause
// and the remedy.
func TestBadConfigurationIsRefused(t *testing.T) {
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	file := t.TempDir() + "/bad.yaml"
	if err := os.WriteFile(file, []byte("region: us-east\nhttp_adr: 127.0.0.1:0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := func() string { return t.TempDir() }
	cases := []struct {
		name string
		code int
		says []string
		args []string
	}{
		{"unknown flag", 2, []string{"unknown flag", "--regoin"}, []string{"server", "--regoin", "x"}},
		{"no region", 2, []string{"--region"}, []string{"server", "--dev"}},
		{"bad region name", 2, []string{`"US East"`, "a-z"}, []string{"server", "--dev", "--region", "US East"}},
		{"unknown key", 2, []string{"http_adr", "line 2", "did you mean http-addr"}, []string{"server", "--dev", "-c", file}},
		{"no such file", 2, []string{"nowhere.yaml"}, []string{"server", "-c", "nowhere.yaml"}},
		{"bad port", 2, []string{"99999"}, []string{"server", "--dev", "--region", "x", "--http-addr", "127.0.0.1:99999", "--data-dir", fresh()}},
		{"beyond loopback", 2, []string{"0.0.0.0", "--dev-allow-remote"}, []string{"server", "--dev", "--region", "x", "--http-addr", "0.0.0.0:0", "--data-dir", fresh()}},
		{"without TLS", 2, []string{"TLS", "--tls-cert"}, []string{"server", "--region", "x", "--data-dir", fresh()}},
		{"busy port", 1, []string{n.HTTP, "in use"}, []string{"server", "--dev", "--region", "x", "--http-addr", n.HTTP, "--federation-addr", "127.0.0.1:0", "--data-dir", fresh()}},
		{"data of another region", 1, []string{"us-east", "mars"}, []string{"server", "--dev", "--region", "mars", "--http-addr", "127.0.0.1:0", "--federation-addr", "127.0.0.1:0", "--data-dir", "STOPPED"}},
		{"data directory in use", 1, []string{n.DataDir, "in use"}, []string{"server", "--dev", "--region", "us-east", "--http-addr", "127.0.0.1:0", "--federation-addr", "127.0.0.1:0", "--data-dir", n.DataDir}},
		{"own peer", 2, []string{"not its own peer"}, []string{"server", "--dev", "--region", "x", "--peer", "x=http://127.0.0.1:1", "--data-dir", fresh()}},
		{"peer without URL", 2, []string{"REGION=URL"}, []string{"server", "--dev", "--region", "x", "--peer", "y", "--data-dir", fresh()}},
	}
	// The data of a stopped node, for the region stamp.
	stopped := cluster.New(t, us)
	stopped.StartAll()
	if err := stopped.Node(us).Stop(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			for i, a := range tc.args {
				if a == "STOPPED" {
					tc.args[i] = stopped.Node(us).DataDir
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, cluster.Binary(t), tc.args...)
			cmd.WaitDelay = time.Second
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			if got := cmd.ProcessState.ExitCode(); err == nil || got != tc.code {
				t.Errorf("exit code %d, want %d", got, tc.code)
			}
			for _, s := range tc.says {
				if !strings.Contains(out.String(), s) {
					t.Errorf("the message does not say %q", s)
				}
			}
			t.Logf("%s", out.String())
		})
	}
}

// An unreachable peer at start is no error at all: the node starts and keeps trying.
func TestUnreachablePeerAtStartIsNoError(t *testing.T) {
	c := cluster.New(t, us, eu)
	c.Node(us).Start() // eu-west does not run
	n := c.Node(us)
	var f api.FederationInfo
	cluster.Within(t, 10*time.Second, "the link is shown as unreachable", func() error {
		if _, err := n.Client().Do(http.MethodGet, api.PathFederation, nil, &f); err != nil {
			return err
		}
		if len(f.Links) != 1 || f.Links[0].State != "unreachable" || f.Links[0].LastError == "" {
			return fmt.Errorf("links are %+v", f.Links)
		}
		return nil
	})
	t.Logf("the link says: %s", f.Links[0].LastError)
	c.Node(eu).Start()
	begun := time.Now()
	cluster.Within(t, 10*time.Second, "the link comes up", func() error {
		if _, err := n.Client().Do(http.MethodGet, api.PathFederation, nil, &f); err != nil {
			return err
		}
		if f.Links[0].State != "connected" {
			return fmt.Errorf("%s", f.Links[0].State)
		}
		return nil
	})
	t.Logf("linked %s after the peer's start", time.Since(begun).Round(time.Millisecond))
}
