package nearside_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"

	nearside "github.com/nearside/nearside/sdk"
)

// region is a tiny stand-in for a registry, so that the examples run: it knows one
// instance of orders.
func region(orders string) *httptest.Server {
	host, port, _ := net.SplitHostPort(orders)
	n, _ := strconv.Atoi(port)
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Nearside-Region", "us-east")
		if r.URL.Path != "/v1/watch" {
			_, _ = io.WriteString(w, "{}")
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		version := `"version":{"region":"us-east","epoch":"1-0000000000000001","revision":7}`
		fmt.Fprintf(w, "event: item\ndata: {%s,\"service\":\"orders\",\"instance\":{\"id\":\"orders-1\",\"address\":%q,\"port\":%d,\"weight\":100,\"status\":\"passing\"}}\n\n", version, host, n)
		fmt.Fprintf(w, "event: synced\ndata: {%s}\n\n", version)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
}

func orders() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s asked for %s", r.Host, r.URL.Path)
	}))
}

// A program calls other services by name. Nothing else changes in its code.
func ExampleClient_Transport() {
	service := orders()
	defer service.Close()
	registry := region(service.Listener.Addr().String())
	defer registry.Close()

	client, err := nearside.New(nearside.Config{Addresses: []string{registry.URL}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()

	web := &http.Client{Transport: client.Transport(nil)}
	resp, err := web.Get("http://orders/v1/latest")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(string(body))
	fmt.Println("served by", resp.Header.Get(nearside.HeaderServedInstance), "in", resp.Header.Get(nearside.HeaderServedRegion))
	// Output:
	// orders asked for /v1/latest
	// served by orders-1 in us-east
}

// Programs that speak something else than HTTP pick an endpoint and tell how it went.
func ExampleClient_Pick() {
	service := orders()
	defer service.Close()
	registry := region(service.Listener.Addr().String())
	defer registry.Close()
	client, err := nearside.New(nearside.Config{Addresses: []string{registry.URL}})
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
	conn, err := net.Dial("tcp", picked.HostPort())
	picked.Done(err)
	if err == nil {
		fmt.Println("connected to", picked.Endpoint.ID)
		_ = conn.Close()
	}
	// Output: connected to orders-1
}

// Resolve says where calls go, and why.
func ExampleClient_Resolve() {
	registry := region("10.0.0.7:8080")
	defer registry.Close()
	client, err := nearside.New(nearside.Config{Addresses: []string{registry.URL}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()

	res, err := client.Resolve(context.Background(), "orders")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(res.Decision.Reason, "in", res.Decision.Region)
	for _, e := range res.Endpoints {
		fmt.Println(e.ID, e.Address, e.Port)
	}
	// Output:
	// same_region in us-east
	// orders-1 10.0.0.7 8080
}

// A program registers when it is ready to serve, and closes the registration before it
// stops: callers go elsewhere before the listener is gone.
func ExampleClient_Register() {
	registry := region("10.0.0.7:8080")
	defer registry.Close()
	client, err := nearside.New(nearside.Config{Addresses: []string{registry.URL}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()

	reg, err := client.Register(context.Background(), nearside.Registration{
		Service: "orders", ID: "orders-1", Address: "10.0.0.7", Port: 8080,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(reg.ID(), "registered:", !reg.Pending())
	if err := reg.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output: orders-1 registered: true
}
