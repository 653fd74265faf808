package shop

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Leaving: the registry hears of it while calls are still answered, then the port closes.
func TestRunLeavesBeforeItCloses(t *testing.T) {
	n := newTown(t)
	file := filepath.Join(t.TempDir(), "ready.json")
	answered := make(chan int, 1)
	n.onLeave = func(self instance) {
		if self.service != Catalog {
			return
		}
		resp, err := n.base.RoundTrip(mustRequest(t, "http://"+net.JoinHostPort(self.address, strconv.Itoa(self.port))+"/healthz"))
		if err != nil {
			t.Error(err)
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}
	ready, stop := open(t, n, Config{ReadyFile: file})

	var fromFile Ready
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &fromFile); err != nil {
		t.Fatal(err)
	}
	if fromFile.PID != os.Getpid() || len(fromFile.Services) != 5 || fromFile.Services[Users] != ready.Services[Users] {
		t.Errorf("ready file: %s", data)
	}
	if got := ready.Services[Orders].ID; got != "orders-a-eu-west" {
		t.Errorf("id %q", got)
	}
	if len(n.apps) != 5 {
		t.Errorf("apps %v: each service needs a name of its own for its snapshot", n.apps)
	}

	begun := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("ending took %s", took)
	}
	if status := <-answered; status != http.StatusServiceUnavailable {
		t.Errorf("health while leaving: %d, want 503", status)
	}
	if len(n.left) != 5 {
		t.Errorf("left: %v", n.left)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ready file is still there: %v", err)
	}
	if c, err := net.Dial("tcp", ready.Services[Catalog].Addr); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
}

// A registry that does not answer keeps the shop neither from serving nor from ending.
func TestRunWithoutRegistry(t *testing.T) {
	n := newTown(t)
	n.silent = true
	ready, stop := open(t, n, Config{Services: []string{Catalog}})
	if a := ask(t, n, "GET", "http://"+ready.Services[Catalog].Addr+"/products/sku-1", nil); a.status != 200 {
		t.Errorf("status %d", a.status)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A registration that is refused for good ends the shop with the reason.
func TestRunRefused(t *testing.T) {
	n := newTown(t)
	n.refuse = errors.New("not in this region")
	err := run(t.Context(), Config{Region: "eu-west", Registry: []string{"http://127.0.0.1:1"}}, n.dial)
	if err == nil || !strings.Contains(err.Error(), "not in this region") {
		t.Errorf("error %v", err)
	}
}

// Ports: fixed by the place in the list, also for a part of the services.
func TestRunPortBase(t *testing.T) {
	n := newTown(t)
	base := freePorts(t)
	ready, _ := open(t, n, Config{PortBase: base, Services: []string{Users, Storefront}})
	for name, offset := range map[string]int{Storefront: 0, Users: 4} {
		if want := net.JoinHostPort("127.0.0.1", strconv.Itoa(base+offset)); ready.Services[name].Addr != want {
			t.Errorf("%s at %s, want %s", name, ready.Services[name].Addr, want)
		}
	}
	err := run(t.Context(), Config{Region: "eu-west", Registry: []string{"http://127.0.0.1:1"}, PortBase: base}, n.dial)
	if err == nil {
		t.Fatal("two shops share their ports")
	}
	for _, want := range []string{Storefront, strconv.Itoa(base), "in use", "--port-base"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
}

// Settings that cannot be are wrong usage, and the message says what can.
func TestRunRefusesImpossibleSettings(t *testing.T) {
	good := Config{Region: "eu-west", Registry: []string{"http://127.0.0.1:7400"}}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no region":       {func(c *Config) { c.Region = "" }, "--region"},
		"bad region":      {func(c *Config) { c.Region = "EU West" }, "a-z"},
		"bad zone":        {func(c *Config) { c.Zone = "a/b" }, "zone"},
		"no registry":     {func(c *Config) { c.Registry = nil }, "--registry"},
		"bad registry":    {func(c *Config) { c.Registry = []string{"127.0.0.1:7400"} }, "http://"},
		"unknown service": {func(c *Config) { c.Services = []string{"cart"} }, "storefront,catalog,orders,payments,users"},
		"all and one":     {func(c *Config) { c.Services = []string{"all", "cart"} }, "all"},
		"bad instance":    {func(c *Config) { c.Instance = "a b" }, "instance"},
		"port too high":   {func(c *Config) { c.PortBase = 65532 }, "65531"},
		"negative port":   {func(c *Config) { c.PortBase = -1 }, "port base"},
		"short ttl":       {func(c *Config) { c.TTL = time.Millisecond }, "ttl"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			err := run(context.Background(), cfg, newTown(t).dial)
			var usage interface{ ExitCode() int }
			if !errors.As(err, &usage) || usage.ExitCode() != 2 {
				t.Fatalf("error %v is not one of usage", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}

// freePorts returns the first of five ports in a row that were free just now.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 50 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		base := first.Addr().(*net.TCPAddr).Port
		held := []net.Listener{first}
		for i := 1; i < len(Services()); i++ {
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(base+i)))
			if err != nil {
				break
			}
			held = append(held, l)
		}
		for _, l := range held {
			l.Close()
		}
		if len(held) == len(Services()) {
			return base
		}
	}
	t.Fatal("found no five free ports in a row")
	return 0
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
