package shop

import (
	"fmt"
	"net/http"
)

const seedUsers = 20

// users knows who shops and what is in their carts. It calls nobody.
type users struct {
	byID  map[string]user // never changed after addUsers
	carts map[string][]item
}

func addUsers(s *server) {
	u := &users{byID: map[string]user{}, carts: map[string][]item{}}
	countries := []string{"US", "DE", "IN", "FR", "BR"}
	for i := range seedUsers {
		id := userID(i)
		u.byID[id] = user{ID: id, Name: fmt.Sprintf("Shopper %d", i+1), Country: countries[i%len(countries)]}
		u.carts[id] = []item{
			{Product: productID(i % seedProducts), Quantity: 1 + i%3},
			{Product: productID((i + 7) % seedProducts), Quantity: 1},
		}
	}
	s.handle("GET /users/{id}", u.get)
	s.handle("GET /users/{id}/cart", u.cart)
}

func userID(i int) string { return fmt.Sprintf("u-%d", i+1) }

func (u *users) get(r *http.Request) (reply, error) {
	found, ok := u.byID[r.PathValue("id")]
	if !ok {
		return reply{}, notFound("user %q is not known", clip(r.PathValue("id")))
	}
	return reply{body: found}, nil
}

func (u *users) cart(r *http.Request) (reply, error) {
	id := r.PathValue("id")
	items, ok := u.carts[id]
	if !ok {
		return reply{}, notFound("user %q is not known", clip(id))
	}
	return reply{body: basket{User: id, Items: items}}, nil
}
