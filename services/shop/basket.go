package shop

import (
	"strconv"
	"strings"

	"github.com/nearside/nearside/sdk/api"
)

// Limits of a basket.
const (
	maxItems    = 20
	maxQuantity = 99
	maxKey      = 128 // bytes of an idempotency key
)

// parseItems reads "sku-1:2,sku-7": products with quantities, 1 where none is given.
func parseItems(s string) ([]item, error) {
	if s == "" {
		return nil, badRequest("items is empty; use items=sku-1:2,sku-7")
	}
	var items []item
	for part := range strings.SplitSeq(s, ",") {
		id, count, counted := strings.Cut(part, ":")
		it := item{Product: id, Quantity: 1}
		if counted {
			n, err := strconv.Atoi(count)
			if err != nil {
				return nil, badRequest("items: quantity %q is not a number", clip(count))
			}
			it.Quantity = n
		}
		// Checked as they come, so that a long list costs no more than a short one.
		if items = append(items, it); len(items) > maxItems {
			break
		}
	}
	return items, checkItems(items)
}

func formatItems(items []item) string {
	parts := make([]string, len(items))
	for i, it := range items {
		parts[i] = it.Product + ":" + strconv.Itoa(it.Quantity)
	}
	return strings.Join(parts, ",")
}

func checkItems(items []item) error {
	if len(items) == 0 || len(items) > maxItems {
		return badRequest("items: use 1 to %d products", maxItems)
	}
	seen := make(map[string]bool, len(items))
	for _, it := range items {
		switch {
		case !validID(it.Product):
			return badRequest("items: product %q is not a name", clip(it.Product))
		case seen[it.Product]:
			return badRequest("items: product %q is named twice", it.Product)
		case it.Quantity < 1 || it.Quantity > maxQuantity:
			return badRequest("items: quantity %d is out of range; use 1 to %d", it.Quantity, maxQuantity)
		}
		seen[it.Product] = true
	}
	return nil
}

func checkUser(id string) error {
	if !validID(id) {
		return badRequest("user %q is not a name; one is \"u-1\"", clip(id))
	}
	return nil
}

// validID reports whether id can name anything here. What passes is also a plain path
// segment, which a ".." would not be.
func validID(id string) bool { return api.ValidInstanceID(id) }

// checkKey returns an error unless key can serve as an idempotency key.
func checkKey(key string) error {
	if key == "" {
		return badRequest("header %s is missing; send one key per purchase, and the same one when repeating it", HeaderIdempotencyKey)
	}
	if len(key) > maxKey {
		return badRequest("header %s is longer than %d bytes", HeaderIdempotencyKey, maxKey)
	}
	return nil
}

// price makes a bill of a basket. Every item must be among the products.
func price(b basket, products []product) (bill, error) {
	byID := make(map[string]product, len(products))
	for _, p := range products {
		byID[p.ID] = p
	}
	out := bill{User: b.User, Currency: currency, Lines: make([]line, 0, len(b.Items))}
	for _, it := range b.Items {
		p, ok := byID[it.Product]
		if !ok {
			return bill{}, notFound("product %q is not known", it.Product)
		}
		total := p.Price * int64(it.Quantity)
		out.Lines = append(out.Lines, line{item: it, Name: p.Name, Price: p.Price, Total: total})
		out.Goods += total
	}
	return out, nil
}
