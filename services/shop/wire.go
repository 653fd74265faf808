package shop

// The five services, by the names they register under.
const (
	Storefront = "storefront"
	Catalog    = "catalog"
	Orders     = "orders"
	Payments   = "payments"
	Users      = "users"
)

// Services returns the names of all services. A service's place in the list is its
// offset from Config.PortBase.
func Services() []string { return []string{Storefront, Catalog, Orders, Payments, Users} }

// Headers of every response.
const (
	HeaderRegion         = "Shop-Region"          // of the process that answered
	HeaderInstance       = "Shop-Instance"        // that answered
	HeaderPaymentsRegion = "Shop-Payments-Region" // where payments was served, if it was asked
	HeaderTrace          = "Shop-Trace-Id"        // of the request, 32 hex digits
	// HeaderIdempotencyKey, of a request, makes a POST safe to repeat.
	HeaderIdempotencyKey = "Idempotency-Key"
)

// currency of every amount. Amounts are whole cents.
const currency = "EUR"

type product struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Price int64  `json:"price_cents"`
	Stock int    `json:"stock"`
}

type productList struct {
	Products []product `json:"products"`
	Currency string    `json:"currency"`
}

type user struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Country string `json:"country"`
}

// item is a wish: so many of a product.
type item struct {
	Product  string `json:"product"`
	Quantity int    `json:"quantity"`
}

type basket struct {
	User  string `json:"user"`
	Items []item `json:"items"`
}

// line is an item with its price.
type line struct {
	item
	Name  string `json:"name"`
	Price int64  `json:"price_cents"`
	Total int64  `json:"total_cents"`
}

// bill is a basket with prices.
type bill struct {
	User     string `json:"user"`
	Lines    []line `json:"lines"`
	Goods    int64  `json:"goods_cents"`
	Currency string `json:"currency"`
}

type quote struct {
	bill
	Fee   int64 `json:"fee_cents"`
	Total int64 `json:"total_cents"`
}

type fee struct {
	Amount   int64  `json:"amount_cents"`
	Fee      int64  `json:"fee_cents"`
	Currency string `json:"currency"`
}

type chargeRequest struct {
	Order    string `json:"order"`
	User     string `json:"user"`
	Amount   int64  `json:"amount_cents"`
	Currency string `json:"currency"`
}

type charge struct {
	ID string `json:"id"`
	chargeRequest
	Fee int64 `json:"fee_cents"`
	// Region that took the money.
	Region string `json:"region"`
}

type order struct {
	ID string `json:"id"`
	quote
	Charge         string `json:"charge"`
	PaymentsRegion string `json:"payments_region"`
}

type home struct {
	User     user      `json:"user"`
	Products []product `json:"products"`
	Currency string    `json:"currency"`
}

// problem is the body of every answer that is not a success.
type problem struct {
	Error   string `json:"error"`             // for programs: see the err… constants
	Detail  string `json:"detail"`            // for people
	Service string `json:"service,omitempty"` // that failed, of error "downstream"
}
