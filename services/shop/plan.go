package shop

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"
)

// The kinds of calls that shoppers make, as Tick.Kinds counts them.
const (
	KindHome     = "home"     // GET /
	KindProduct  = "product"  // GET /products/{id}
	KindQuote    = "quote"    // GET /quote: touches payments
	KindCheckout = "checkout" // POST /checkout with a key: touches payments
)

func kinds() []string { return []string{KindHome, KindProduct, KindQuote, KindCheckout} }

// shopperCall is one call to make. All are safe to repeat: GETs by nature, checkouts by
// their key.
type shopperCall struct {
	kind   string
	method string
	target string // path and query
	key    string // "" for a GET
	body   []byte // nil for a GET
}

// plan draws the calls of all shoppers. The same seed draws the same calls; only the
// keys of checkouts differ from run to run, by the prefix, since a key used again would
// buy nothing. Not for concurrent use.
type plan struct {
	rng    *rand.Rand
	prefix string
	drawn  int
}

func newPlan(seed uint64, prefix string) *plan {
	return &plan{rng: rand.New(rand.NewPCG(seed, 0x6e656172)), prefix: prefix}
}

// next draws a call: 45 % home, 25 % product, 20 % quote, 10 % checkout.
func (p *plan) next() shopperCall {
	switch n := p.rng.IntN(100); {
	case n < 45:
		return p.draw(KindHome)
	case n < 70:
		return p.draw(KindProduct)
	case n < 90:
		return p.draw(KindQuote)
	}
	return p.draw(KindCheckout)
}

// draw draws a call of one kind.
func (p *plan) draw(kind string) shopperCall {
	p.drawn++
	c := shopperCall{kind: kind, method: http.MethodGet}
	who := userID(p.rng.IntN(seedUsers))
	switch kind {
	case KindProduct:
		c.target = "/products/" + productID(p.rng.IntN(seedProducts))
	case KindQuote:
		c.target = "/quote?" + url.Values{"user": {who}, "items": {formatItems(p.items())}}.Encode()
	case KindCheckout:
		c.method, c.target = http.MethodPost, "/checkout"
		c.key = fmt.Sprintf("%s-%d", p.prefix, p.drawn)
		c.body, _ = json.Marshal(basket{User: who, Items: p.items()}) // strings and numbers: always JSON
	default:
		c.target = "/?user=" + who
	}
	return c
}

func (p *plan) items() []item {
	items := make([]item, 1+p.rng.IntN(3))
	for i, n := range p.rng.Perm(seedProducts)[:len(items)] {
		items[i] = item{Product: productID(n), Quantity: 1 + p.rng.IntN(3)}
	}
	return items
}

// maxBehind is how late a call may start before it is given up as skipped.
const maxBehind = time.Second

// pace says when calls are to start: at a fixed rate, whatever becomes of them (an open
// loop), so that a slow shop is measured by all the shoppers it would have had.
type pace struct {
	next  time.Time
	every time.Duration
}

// due returns when the calls that are due at now were to start. After a pause of the whole
// program it skips those of more than maxBehind ago, and says how many.
func (p *pace) due(now time.Time) (starts []time.Time, skipped int64) {
	if late := now.Add(-maxBehind).Sub(p.next); late > 0 {
		skipped = int64(late/p.every) + 1
		p.next = p.next.Add(time.Duration(skipped) * p.every)
	}
	for ; !p.next.After(now); p.next = p.next.Add(p.every) {
		starts = append(starts, p.next)
	}
	return starts, skipped
}
