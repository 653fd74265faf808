package registry

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"

	"github.com/nearside/nearside/sdk/api"
)

// Verb is what a caller wants to do.
type Verb string

// The verbs.
const (
	VerbRead     Verb = "read"     // list, resolve, explain, what-if, watch
	VerbRegister Verb = "register" // register, heartbeat and deregister an instance
	VerbOperate  Verb = "operate"  // change the status of an instance, remove a service, save the records
	VerbKVRead   Verb = "kv-read"  // get, list and watch keys
	VerbKVWrite  Verb = "kv-write" // put and delete keys
	VerbPolicy   Verb = "policy"   // set and delete a policy; Service is api.PolicyDefault for the default
	VerbDrain    Verb = "drain"    // drain a region, and take that back
	VerbFederate Verb = "federate" // raise the region's epoch, as the federation does when peers are ahead
	VerbNode     Verb = "node"     // report as a node of this region to the one that owns liveness
)

// Access is one thing a caller wants to do. Service is empty when it concerns the whole
// namespace, Namespace when it concerns the region.
type Access struct {
	Verb      Verb
	Namespace api.Namespace
	Service   api.ServiceName
	// Key is the key that the VerbKV… verbs are about. A list or watch has Prefix instead: it
	// is allowed only to whoever may read every key that begins with it.
	Key, Prefix string
	// Region is what VerbDrain is about.
	Region api.Region
}

// Authorizer decides whether the caller behind ctx may do a. Its error is an *api.Error with
// CodeUnauthorized (who are you?) or CodeForbidden (not you). It is called before every use
// case, by many goroutines, and must not block.
type Authorizer interface {
	Authorize(ctx context.Context, a Access) error
}

type tokenKey struct{}

// WithToken returns a context that carries the caller's bearer token. Doors put it there.
func WithToken(ctx context.Context, bearer string) context.Context {
	return context.WithValue(ctx, tokenKey{}, bearer)
}

// OpenAccess allows everything to everyone.
func OpenAccess() Authorizer { return openAccess{} }

type openAccess struct{}

func (openAccess) Authorize(context.Context, Access) error { return nil }

// TokenAccess allows everything to whoever shows the bearer token whose SHA-256 is sum. Only
// the sum is held, so a dump of the process does not give the token away, and the
// comparison takes the same time whatever the token.
func TokenAccess(sum [sha256.Size]byte) Authorizer { return tokenAccess{sum} }

type tokenAccess struct{ sum [sha256.Size]byte }

func (t tokenAccess) Authorize(ctx context.Context, _ Access) error {
	bearer, _ := ctx.Value(tokenKey{}).(string)
	if bearer == "" {
		return &api.Error{Code: api.CodeUnauthorized, Detail: "a token is needed", Remedy: "send it as Authorization: Bearer TOKEN"}
	}
	got := sha256.Sum256([]byte(bearer))
	if subtle.ConstantTimeCompare(got[:], t.sum[:]) != 1 {
		return &api.Error{Code: api.CodeUnauthorized, Detail: "the token is not valid here", Remedy: "use the token of this region"}
	}
	return nil
}
