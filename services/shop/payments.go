package shop

import (
	"fmt"
	"net/http"
	"strconv"
)

// maxAmount of a charge, in cents.
const maxAmount = 100_000_000

// payments knows fees and takes charges. It calls nobody.
type payments struct {
	region  string
	charges *ledger[charge]
}

func addPayments(s *server) {
	p := &payments{region: s.region, charges: newLedger[charge]()}
	s.handle("GET /fees", p.fees)
	s.handle("POST /charges", p.charge)
	s.handle("GET /charges/{id}", p.get)
}

// feeFor is 1.4 % of the amount, rounded up, and 25 cents.
func feeFor(amount int64) int64 { return (amount*14+999)/1000 + 25 }

func (p *payments) fees(r *http.Request) (reply, error) {
	text := r.URL.Query().Get("amount")
	amount, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return reply{}, badRequest("amount %q is not a number of cents; use amount=1999", clip(text))
	}
	if err := checkAmount(amount); err != nil {
		return reply{}, err
	}
	return reply{
		body:           fee{Amount: amount, Fee: feeFor(amount), Currency: currency},
		paymentsRegion: p.region,
	}, nil
}

func (p *payments) charge(r *http.Request) (reply, error) {
	key := r.Header.Get(HeaderIdempotencyKey)
	if err := checkKey(key); err != nil {
		return reply{}, err
	}
	var req chargeRequest
	if err := readJSON(r, &req); err != nil {
		return reply{}, err
	}
	if err := checkAmount(req.Amount); err != nil {
		return reply{}, err
	}
	if req.Currency != currency {
		return reply{}, badRequest("currency %q is not taken; use %s", clip(req.Currency), currency)
	}
	if !validID(req.Order) {
		return reply{}, badRequest("order %q is not a number of ours", clip(req.Order))
	}
	if err := checkUser(req.User); err != nil {
		return reply{}, err
	}
	id := idOf("c-", key)
	made, repeated, err := p.charges.do(r.Context(), id, fmt.Sprint(req), func() (charge, error) {
		return charge{ID: id, chargeRequest: req, Fee: feeFor(req.Amount), Region: p.region}, nil
	})
	if err != nil {
		return reply{}, err
	}
	return reply{status: created(repeated), body: made, paymentsRegion: p.region}, nil
}

func (p *payments) get(r *http.Request) (reply, error) {
	id := r.PathValue("id")
	found, ok := p.charges.find(id)
	if !ok {
		return reply{}, notFound("charge %q is not known to this instance", clip(id))
	}
	return reply{body: found, paymentsRegion: p.region}, nil
}

func checkAmount(amount int64) error {
	if amount < 1 || amount > maxAmount {
		return badRequest("amount %d is out of range; use 1 to %d cents", amount, maxAmount)
	}
	return nil
}

// created is the status of an outcome that is new, or of one given again.
func created(repeated bool) int {
	if repeated {
		return http.StatusOK
	}
	return http.StatusCreated
}
