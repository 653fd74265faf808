package nearside_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/sdktest"
)

// Registries over TLS, with certificates of a private authority and with a token. A client of
// the program's own verifies them; its connections are the program's to close, when the client is
// closed.
func ExampleConfig_tls() {
	world := sdktest.NewWorld(nil, "us-east")
	defer world.Close()
	world.Region("us-east").Register(nearside.Registration{Service: "orders", Address: "10.0.0.7", Port: 8080})
	registry, roots := registryOverTLS(world.Region("us-east"))
	defer registry.Close()

	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections() // after Close of the client
	client, err := nearside.New(nearside.Config{
		Addresses:  []string{registry.URL}, // https://…
		Token:      "of this program",      // only over TLS, as the addresses are https
		HTTPClient: &http.Client{Transport: transport},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	picked, err := client.Pick(context.Background(), "orders")
	if err != nil {
		fmt.Println(err)
		return
	}
	picked.Done(nil)
	fmt.Println(picked.HostPort())
	// Output: 10.0.0.7:8080
}

// A service over TLS: its instances have certificates for its name, and not for their addresses.
func ExampleConfig_serviceTLS() {
	world := sdktest.NewWorld(nil, "us-east")
	defer world.Close()
	instance := httptest.NewTLSServer(text("the orders"))
	defer instance.Close()
	host, port, _ := net.SplitHostPort(instance.Listener.Addr().String())
	number, _ := strconv.Atoi(port)
	world.Region("us-east").Register(nearside.Registration{Service: "orders", Address: host, Port: number})

	cfg := world.Region("us-east").Config()
	cfg.ServiceTLS = &tls.Config{
		RootCAs:    rootsOf(instance),
		MinVersion: tls.VersionTLS12,
		// The certificate of net/http/httptest is for this name. Without ServerName it would
		// have to be for the host of the URL, orders.
		ServerName: "example.com",
	}
	client, err := nearside.New(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	web := &http.Client{Transport: client.Transport(nil)}
	resp, err := web.Get("https://orders/v1/latest")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(string(body))
	// Output: the orders: /v1/latest
}

// registryOverTLS is a node of the region behind TLS, and whom to trust for it.
func registryOverTLS(region *sdktest.Region) (*httptest.Server, *x509.CertPool) {
	to, _ := url.Parse(region.URL())
	s := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }})
	return s, rootsOf(s)
}

func rootsOf(s *httptest.Server) *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return roots
}
