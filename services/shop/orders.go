package shop

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// orders prices baskets (asking catalog) and has them paid (asking payments).
type orders struct {
	call  *caller
	taken *ledger[order]
}

func addOrders(s *server) {
	o := &orders{call: s.call, taken: newLedger[order]()}
	s.handle("GET /quote", o.quote)
	s.handle("POST /orders", o.place)
	s.handle("GET /orders/{id}", o.get)
}

func (o *orders) quote(r *http.Request) (reply, error) {
	query := r.URL.Query()
	items, err := parseItems(query.Get("items"))
	if err != nil {
		return reply{}, err
	}
	b := basket{User: query.Get("user"), Items: items}
	if err := checkUser(b.User); err != nil {
		return reply{}, err
	}
	priced, err := billFor(r.Context(), o.call, b)
	if err != nil {
		return reply{}, err
	}
	var f fee
	header, err := o.call.get(r.Context(), Payments, "/fees?amount="+strconv.FormatInt(priced.Goods, 10), &f)
	if err != nil {
		return reply{}, err
	}
	return reply{
		body:           quote{bill: priced, Fee: f.Fee, Total: priced.Goods + f.Fee},
		paymentsRegion: header.Get(HeaderRegion),
	}, nil
}

func (o *orders) place(r *http.Request) (reply, error) {
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
	id := idOf("o-", key)
	made, repeated, err := o.taken.do(r.Context(), id, fmt.Sprint(b), func() (order, error) {
		return o.make(r.Context(), id, key, b)
	})
	if err != nil {
		return reply{}, err
	}
	return reply{status: created(repeated), body: made, paymentsRegion: made.PaymentsRegion}, nil
}

// make has the basket paid under the shopper's own key: whoever repeats the purchase,
// here or in another instance of orders, asks payments for the same charge.
func (o *orders) make(ctx context.Context, id, key string, b basket) (order, error) {
	priced, err := billFor(ctx, o.call, b)
	if err != nil {
		return order{}, err
	}
	var paid charge
	header, err := o.call.post(ctx, Payments, "/charges", key,
		chargeRequest{Order: id, User: b.User, Amount: priced.Goods, Currency: currency}, &paid)
	if err != nil {
		return order{}, err
	}
	return order{
		ID:             id,
		quote:          quote{bill: priced, Fee: paid.Fee, Total: priced.Goods + paid.Fee},
		Charge:         paid.ID,
		PaymentsRegion: header.Get(HeaderRegion),
	}, nil
}

func (o *orders) get(r *http.Request) (reply, error) {
	id := r.PathValue("id")
	found, ok := o.taken.find(id)
	if !ok {
		return reply{}, notFound("order %q is not known to this instance", clip(id))
	}
	return reply{body: found}, nil
}

// billFor prices a basket with catalog's prices of now.
func billFor(ctx context.Context, call *caller, b basket) (bill, error) {
	ids := make([]string, len(b.Items))
	for i, it := range b.Items {
		ids[i] = it.Product
	}
	var list productList
	if _, err := call.get(ctx, Catalog, "/prices?ids="+url.QueryEscape(strings.Join(ids, ",")), &list); err != nil {
		return bill{}, err
	}
	return price(b, list.Products)
}
