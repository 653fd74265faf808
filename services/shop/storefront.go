package shop

import (
	"net/http"
	"net/url"

	"golang.org/x/sync/errgroup"
)

// storefront is what shoppers see: it holds no data and composes the other services.
type storefront struct{ call *caller }

func addStorefront(s *server) {
	f := &storefront{call: s.call}
	s.handle("GET /{$}", f.home)
	s.handle("GET /products/{id}", f.product)
	s.handle("GET /cart/{user}", f.cart)
	s.handle("GET /quote", f.quote)
	s.handle("POST /checkout", f.checkout)
	s.handle("GET /orders/{id}", f.order)
}

// home answers ?user=u-1 (the default) with the products and the user, asked at once.
func (f *storefront) home(r *http.Request) (reply, error) {
	id := r.URL.Query().Get("user")
	if id == "" {
		id = userID(0)
	}
	if err := checkUser(id); err != nil {
		return reply{}, err
	}
	var (
		list productList
		who  user
	)
	g, ctx := errgroup.WithContext(r.Context())
	g.Go(func() error { _, err := f.call.get(ctx, Catalog, "/products", &list); return err })
	g.Go(func() error { _, err := f.call.get(ctx, Users, "/users/"+id, &who); return err })
	if err := g.Wait(); err != nil {
		return reply{}, err
	}
	return reply{body: home{User: who, Products: list.Products, Currency: list.Currency}}, nil
}

func (f *storefront) product(r *http.Request) (reply, error) {
	id := r.PathValue("id")
	if !validID(id) {
		return reply{}, notFound("product %q is not known", clip(id))
	}
	var p product
	_, err := f.call.get(r.Context(), Catalog, "/products/"+id, &p)
	return reply{body: p}, err
}

func (f *storefront) cart(r *http.Request) (reply, error) {
	id := r.PathValue("user")
	if err := checkUser(id); err != nil {
		return reply{}, err
	}
	var b basket
	if _, err := f.call.get(r.Context(), Users, "/users/"+id+"/cart", &b); err != nil {
		return reply{}, err
	}
	priced, err := billFor(r.Context(), f.call, b)
	return reply{body: priced}, err
}

// quote answers ?user=u-1&items=sku-1:2,sku-7 with what it would cost. Safe to repeat.
func (f *storefront) quote(r *http.Request) (reply, error) {
	query := r.URL.Query()
	ask := url.Values{"user": {query.Get("user")}, "items": {query.Get("items")}}
	var q quote
	header, err := f.call.get(r.Context(), Orders, "/quote?"+ask.Encode(), &q)
	if err != nil {
		return reply{}, err
	}
	return reply{body: q, paymentsRegion: header.Get(HeaderPaymentsRegion)}, nil
}

// checkout buys a basket, once per Idempotency-Key.
func (f *storefront) checkout(r *http.Request) (reply, error) {
	key := r.Header.Get(HeaderIdempotencyKey)
	if err := checkKey(key); err != nil {
		return reply{}, err
	}
	var b basket
	if err := readJSON(r, &b); err != nil {
		return reply{}, err
	}
	if err := checkUser(b.User); err != nil {
		return reply{}, err
	}
	if err := checkItems(b.Items); err != nil {
		return reply{}, err
	}
	var who user
	if _, err := f.call.get(r.Context(), Users, "/users/"+b.User, &who); err != nil {
		return reply{}, err
	}
	var made order
	header, err := f.call.post(r.Context(), Orders, "/orders", key, b, &made)
	if err != nil {
		return reply{}, err
	}
	return reply{
		status: http.StatusCreated, body: made,
		paymentsRegion: header.Get(HeaderPaymentsRegion),
	}, nil
}

func (f *storefront) order(r *http.Request) (reply, error) {
	id := r.PathValue("id")
	if !validID(id) {
		return reply{}, notFound("order %q is not known", clip(id))
	}
	var o order
	_, err := f.call.get(r.Context(), Orders, "/orders/"+id, &o)
	return reply{body: o}, err
}
