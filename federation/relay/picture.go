package relay

import (
	"slices"
	"time"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Picture is what we hold of an origin, as it is passed on. It implements origin.Relay. It is
// immutable.
type Picture struct{ view replica.View }

// NewPicture makes a picture of a view.
func NewPicture(v replica.View) *Picture { return &Picture{v} }

// Version implements origin.Image.
func (p *Picture) Version() api.Version { return p.view.Version }

// Services implements origin.Image.
func (p *Picture) Services() []api.ServiceKey {
	keys := make([]api.ServiceKey, 0, p.view.Truth.Len())
	for k := range p.view.Truth.All {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, replica.CompareKeys)
	return keys
}

// Service implements origin.Image: there are no instances, only the revision of the row.
func (p *Picture) Service(k api.ServiceKey) ([]*api.Instance, uint64) {
	if e := p.view.Truth.Get(k); e != nil {
		return nil, e.Revision
	}
	return nil, 0
}

// Row implements origin.Relay.
func (p *Picture) Row(k api.ServiceKey) (replica.Row, summary.Hash, bool) {
	e := p.view.Truth.Get(k)
	if e == nil {
		return replica.Row{}, 0, false
	}
	body := e.Body()
	return replica.Row{Revision: e.Revision, Body: body}, e.Hash, body != nil
}

// Says implements origin.Relay.
func (p *Picture) Says() replica.Statement {
	if s := p.view.Statement; s != nil {
		return *s
	}
	// Nobody signs here; then it is we who say what the origin said.
	return replica.Statement{
		Version: p.view.Version, Digest: p.view.Digest, Drained: p.view.Drained, Complete: p.view.Complete, Term: p.view.Term, Addresses: p.view.Addresses,
	}
}

// Depth implements origin.Relay.
func (p *Picture) Depth() int { return p.view.Depth }

// Via is the relay that we have the rows from; "" = from the origin.
func (p *Picture) Via() api.Region { return p.view.Via }

// Digest is that of the rows.
func (p *Picture) Digest() summary.Digest { return p.view.Digest }

// Age is that of the origin's word, at now.
func (p *Picture) Age(now time.Time) time.Duration { return p.view.Age(now) }

// Lacks says why a view is not passed on now, "" when it is. signed: origins sign here.
func Lacks(v *replica.View, signed bool, now time.Time) string {
	switch {
	case v.Version.IsZero(), v.Gone:
		return "nothing is known of it here"
	case !v.Confirmed():
		return "it has not confirmed what is known of it here"
	case v.Leaving:
		return "it said that it ends"
	case v.Quarantined > 0:
		return "some of its rows are not used here"
	case v.Depth >= replica.MaxDepth:
		return "its rows come here through too many relays"
	case v.Age(now) >= replica.ExpiredAfter:
		return "what is known of it here is too old"
	case signed && v.Statement == nil:
		return "it did not sign what is known of it here"
	}
	return ""
}
