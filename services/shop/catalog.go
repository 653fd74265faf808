package shop

import (
	"fmt"
	"net/http"
	"strings"
)

const seedProducts = 24

// catalog knows the products. It calls nobody.
type catalog struct {
	products []product // never changed after addCatalog
	byID     map[string]int
}

func addCatalog(s *server) {
	c := &catalog{products: products(), byID: map[string]int{}}
	for i, p := range c.products {
		c.byID[p.ID] = i
	}
	s.handle("GET /products", c.list)
	s.handle("GET /products/{id}", c.get)
	s.handle("GET /prices", c.prices)
}

// products generates the same assortment in every process.
func products() []product {
	kinds := []string{"kettle", "lamp", "chair", "mug", "rug", "clock"}
	looks := []string{"plain", "striped", "tall", "small"}
	out := make([]product, seedProducts)
	for i := range out {
		out[i] = product{
			ID:    productID(i),
			Name:  looks[i/len(kinds)] + " " + kinds[i%len(kinds)],
			Price: int64(499 + (i*i*137)%9500),
			Stock: 5 + (i*7)%40,
		}
	}
	return out
}

func productID(i int) string { return fmt.Sprintf("sku-%d", i+1) }

func (c *catalog) list(*http.Request) (reply, error) {
	return reply{body: productList{Products: c.products, Currency: currency}}, nil
}

func (c *catalog) get(r *http.Request) (reply, error) {
	id := r.PathValue("id")
	i, ok := c.byID[id]
	if !ok {
		return reply{}, notFound("product %q is not known", clip(id))
	}
	return reply{body: c.products[i]}, nil
}

// prices answers ?ids=sku-1,sku-2 with those products, in that order.
func (c *catalog) prices(r *http.Request) (reply, error) {
	ids := r.URL.Query().Get("ids")
	if ids == "" {
		return reply{}, badRequest("ids is missing; use ids=sku-1,sku-2")
	}
	out := productList{Currency: currency}
	for id := range strings.SplitSeq(ids, ",") {
		i, ok := c.byID[id]
		if !ok {
			return reply{}, notFound("product %q is not known", clip(id))
		}
		if len(out.Products) == maxItems {
			return reply{}, badRequest("ids: use at most %d", maxItems)
		}
		out.Products = append(out.Products, c.products[i])
	}
	return reply{body: out}, nil
}
