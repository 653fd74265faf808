package peer

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Query is what a reader asks for.
type Query struct {
	Reader api.Region  // who reads
	Node   string      // which of its nodes
	Origin api.Region  // whom it means to read
	Peer   api.Region  // whom it asks, when that is not Origin: a relay
	Have   api.Version // what it holds of Origin; zero = nothing
	// Digest of what it holds, when Have is set: with equal rows not even a lost history
	// needs a snapshot.
	Digest summary.Digest
	Term   uint64       // of the publisher that Have came from
	Sums   summary.Sums // asks for the buckets that differ from these
	Full   bool         // asks for all rows
	// Holding is what the reader has in the buckets that the origin asked about at version At.
	Holding *summary.Holding
	At      api.Version
	Can     replica.Features // of the reader
	// Own is the epoch of the reader's own region, so that another one of its name is known from it.
	Own api.Epoch
	// Careful asks an origin that would have to raise its epoch for Have to say so instead, see
	// HistoryDiffers: it may be another region than the one that Have is of.
	Careful bool
	// History asks a ping for the origin's epoch.
	History bool
	echo    string // the reader's, for the greeting
	Zstd    bool   // the reader takes a compressed answer

	// MinProto and MaxProto are the versions of the frames that the reader speaks; 0 = ours.
	MinProto, MaxProto int
}

func (q *Query) ask() replica.Ask {
	return replica.Ask{
		Have: q.Have, Digest: q.Digest, Term: q.Term, Sums: q.Sums, Full: q.Full, Holding: q.Holding, At: q.At, Can: q.Can,
	}
}

func (q *Query) protos() (oldest, newest int) {
	oldest, newest = q.MinProto, q.MaxProto
	if oldest == 0 {
		oldest = replica.MinProto
	}
	if newest == 0 {
		newest = replica.Proto
	}
	return oldest, newest
}

// values returns the query as parameters.
func (q *Query) values() url.Values {
	oldest, newest := q.protos()
	v := url.Values{
		"proto": {strconv.Itoa(oldest)}, "max_proto": {strconv.Itoa(newest)},
		"reader": {string(q.Reader)}, "region": {string(q.peer())},
	}
	if q.asks() {
		v.Set("origin", string(q.Origin))
	}
	if q.Node != "" {
		v.Set("node", q.Node)
	}
	if !q.Have.IsZero() {
		v.Set("have", q.Have.String())
		v.Set("digest", q.Digest.String())
	}
	if q.Term != 0 {
		v.Set("term", strconv.FormatUint(q.Term, 10))
	}
	if q.Full {
		v.Set("full", "true")
	}
	if !q.At.IsZero() {
		v.Set("at", q.At.String())
	}
	if !q.Own.IsZero() {
		v.Set("own", q.Own.String())
	}
	if q.Careful {
		v.Set("refute", "no")
	}
	if q.History {
		v.Set("history", "true")
	}
	if q.echo != "" {
		v.Set("echo", q.echo)
	}
	if q.Can != 0 {
		v.Set("can", q.Can.String())
	}
	return v
}

const maxHaves = 256 // versions of one request; a relay tells all that it holds

// admit checks who asks for what.
func (s *Server) admit(r *http.Request) (Query, error) {
	var who api.Region // authenticated; a stranger learns nothing, not even what it asked wrongly
	if s.cfg.PeerRegion != nil {
		var err error
		if who, err = s.identify(r); err != nil {
			return Query{}, err
		}
	}
	v := r.URL.Query()
	q := Query{
		Reader: api.Region(v.Get("reader")), Node: v.Get("node"), Origin: api.Region(v.Get("region")),
		Full: v.Get("full") == "true",
	}
	if o := api.Region(v.Get("origin")); o != "" && o != q.Origin {
		q.Peer, q.Origin = q.Origin, o
		if err := api.CheckRegion(string(o)); err != nil {
			return q, err
		}
		if q.Peer == "" {
			q.Peer = s.cfg.Region
		}
	}
	if err := q.readProtos(v); err != nil {
		return q, err
	}
	if err := api.CheckRegion(string(q.Reader)); err != nil {
		return q, err
	}
	if q.Node != "" && !api.ValidInstanceID(q.Node) {
		return q, api.FieldError("node", "node "+api.Quote(q.Node)+" is not a valid name", "use letters, digits, '.', '_', ':' and '-'")
	}
	if s.cfg.PeerRegion != nil && who != q.Reader {
		return q, s.refuse(r, api.BecauseCertificate, who, &api.Error{
			Code: api.CodeForbidden, Field: "reader", Detail: fmt.Sprintf("the certificate is of region %s, the request of %s", api.Quote(string(who)), api.Quote(string(q.Reader))),
			Remedy: "use the certificate of the reader's own region",
		})
	}
	switch {
	case q.Reader == s.cfg.Region && !q.asks():
		return q, s.refuse(r, api.BecauseOurName, who, &api.Error{
			Code: api.CodeConflict, Field: "reader", Detail: fmt.Sprintf("this is region %s already; two regions must not share a name", s.cfg.Region),
			Remedy: "give the reader's region another name, or remove this address from its peers",
		})
	case q.peer() != "" && q.peer() != s.cfg.Region:
		return q, &api.Error{
			Code: api.CodeConflict, Field: "region", Detail: fmt.Sprintf("this is region %s, not %s", s.cfg.Region, api.Quote(string(q.peer()))),
			Remedy: "correct the address in the reader's peers",
		}
	}
	if len(v["have"]) > maxHaves {
		return q, api.FieldError("have", "too many versions", fmt.Sprintf("send at most %d", maxHaves))
	}
	for _, h := range v["have"] {
		at, err := api.ParseVersion(h)
		if err != nil {
			return q, api.FieldError("have", err.Error(), `use "region/generation-nonce/revision"`)
		}
		if at.Region == s.cfg.Region && !q.asks() || at.Region == q.Origin && q.asks() {
			q.Have = at
		}
	}
	if d := v.Get("digest"); d != "" {
		if err := q.Digest.UnmarshalText([]byte(d)); err != nil {
			return q, api.FieldError("digest", err.Error(), "use 16 hex digits")
		}
	}
	if t := v.Get("term"); t != "" {
		var err error
		if q.Term, err = strconv.ParseUint(t, 10, 64); err != nil {
			return q, api.FieldError("term", "term "+api.Quote(t)+" is not a number", "leave it out, or send the last hello's")
		}
	}
	if at := v.Get("at"); at != "" {
		var err error
		if q.At, err = api.ParseVersion(at); err != nil {
			return q, api.FieldError("at", err.Error(), `use "region/generation-nonce/revision"`)
		}
	}
	if own := v.Get("own"); own != "" {
		var err error
		if q.Own, err = api.ParseEpoch(own); err != nil {
			return q, api.FieldError("own", err.Error(), `use "generation-nonce"`)
		}
	}
	q.Careful, q.History = v.Get("refute") == "no", v.Get("history") == "true"
	_ = q.Can.UnmarshalText([]byte(v.Get("can"))) // never fails
	if e := v.Get("echo"); api.ValidInstanceID(e) {
		q.echo = e
	}
	q.Zstd = acceptsZstd(r.Header)
	if r.Method == http.MethodPost {
		return q, q.readBody(r)
	}
	return q, nil
}

// maxHolding bounds the hashes of a reader's rows.
var maxHolding = summary.MaxHoldingBytes(replica.MaxRows)

// readBody reads what the reader tells of its rows.
func (q *Query) readBody(r *http.Request) error {
	holding := r.Header.Get("Content-Type") == HoldingType
	limit := summary.MaxBuckets * 8
	if holding {
		limit = maxHolding
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, int64(limit)+1))
	switch {
	case err != nil:
		return &api.Error{Code: api.CodeInvalidRequest, Detail: "what the reader has could not be read: " + err.Error()}
	case len(body) > limit:
		return &api.Error{Code: api.CodeInvalidRequest, Detail: fmt.Sprintf("the body exceeds %d bytes", limit), Remedy: "use GET"}
	case holding:
		q.Holding, err = summary.ReadHolding(body)
	default:
		q.Sums, err = summary.ReadSums(body)
	}
	if err != nil {
		return &api.Error{Code: api.CodeInvalidRequest, Detail: err.Error(), Remedy: "send the digests of all buckets, or use GET"}
	}
	return nil
}

// readProtos reads the versions that the reader speaks. The first version of the program sends
// only "proto", and speaks nothing newer.
func (q *Query) readProtos(v url.Values) error {
	oldest, err := strconv.Atoi(v.Get("proto"))
	newest := oldest
	if m := v.Get("max_proto"); m != "" && err == nil {
		newest, err = strconv.Atoi(m)
	}
	if err != nil || oldest < 1 || origin.Negotiate(oldest, newest) == 0 {
		return &api.Error{
			Code: api.CodeUnsupported, Field: "proto", Detail: fmt.Sprintf("version %s of the peer protocol is not spoken here", api.Quote(v.Get("proto"))),
			Remedy: fmt.Sprintf("use versions %d to %d; upgrade the older of the two regions", replica.MinProto, replica.Proto),
		}
	}
	q.MinProto, q.MaxProto = oldest, newest
	return nil
}
