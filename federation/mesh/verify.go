package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Bounds of a verification.
const (
	verifyTries = 8
	verifyPause = 300 * time.Millisecond
	verifyLimit = 4 * time.Second
	// MaxDifferences bounds the rows that a verification names.
	MaxDifferences = 1000
)

// Verify proves that what is held of a region is what its federation says it should be, or
// names the rows in which it is not. Rows that change meanwhile are told apart: they are on
// their way, and prove nothing. It asks again, up to eight times in 4 s, until all is still, or
// differences were found twice. The error is an *api.Error: unavailable when the
// region cannot be asked.
func (m *Mesh) Verify(ctx context.Context, region api.Region) (api.Verification, error) {
	l, err := m.linkOf(region)
	if err != nil {
		return api.Verification{}, err
	}
	if len(m.cfg.Near.Only) > 0 {
		return api.Verification{}, &api.Error{
			Code: api.CodeUnsupported, Detail: "this node does not read " + string(region) + ": it has what it knows of it from its region's federation process",
			Remedy: "ask that process, at its --http-addr",
		}
	}
	ctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	began := time.Now()
	var out api.Verification
	differed := false
	for try := 1; ; try++ {
		next, err := l.compare(ctx)
		switch {
		case err != nil && out.Tries == 0:
			return out, err
		case err != nil:
			out.TookMS = time.Since(began).Milliseconds()
			return out, nil // what the last answer showed
		}
		out = next
		out.Tries, out.TookMS = try, time.Since(began).Milliseconds()
		again := out.Result == api.VerifyMoving || out.Result == api.VerifyDiffers && !differed
		differed = out.Result == api.VerifyDiffers
		if !again || try == verifyTries {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return out, nil
		case <-time.After(verifyPause):
		}
	}
}

func (m *Mesh) linkOf(region api.Region) (*link, error) {
	l := m.by(region)
	switch {
	case region == m.cfg.Region:
		return nil, api.FieldError("region", fmt.Sprintf("%s is this region itself; it holds its own records, not a copy", region), "name another region")
	case l == nil:
		return nil, &api.Error{
			Code: api.CodeRegionNotFound, Field: "region", Detail: "region " + api.Quote(string(region)) + " is not a peer of this node",
			Remedy: "GET /v1/federation lists the peers; --peer REGION=URL adds one",
		}
	}
	return l, nil
}

// compare asks the origin once.
func (l *link) compare(ctx context.Context) (api.Verification, error) {
	s := l.state.Load()
	v := &s.view
	if v.Version.IsZero() {
		return api.Verification{}, &api.Error{
			Code: api.CodeUnavailable, Detail: "nothing is known of " + string(l.peer) + " yet", Remedy: "see \"nearside federation status\"",
		}
	}
	if err := l.comparable(v); err != nil {
		return api.Verification{}, err
	}
	c, err := l.askToCompare(ctx, s, l.question(v))
	if err != nil {
		return api.Verification{}, err
	}
	return contrast(v, c), nil
}

// comparable returns an error when the rows are not those that the origin would tell this node.
func (l *link) comparable(v *replica.View) error {
	switch {
	case len(l.mesh.cfg.Near.Only) > 0:
		return &api.Error{
			Code: api.CodeUnsupported, Detail: "this node takes the rows of " + string(l.peer) + " from its region's federation process, which compares them with the origin",
			Remedy: "ask that process: its own HTTP address has the same verb",
		}
	case v.Via != "" && v.Via != l.self():
		return &api.Error{
			Code: api.CodeUnavailable, Detail: fmt.Sprintf("the rows of %s are taken from %s now, which is told others than we are", l.peer, v.Via),
			Remedy: "verify at " + string(v.Via) + ", or when the federation answers again: \"nearside federation status\"",
		}
	}
	return nil
}

// question is what to ask the origin about a view.
func (l *link) question(v *replica.View) peer.Query {
	return peer.Query{
		Reader: l.mesh.cfg.Region, Node: l.mesh.cfg.Node, Origin: l.peer, Have: v.Version, Digest: v.Digest, Term: v.Term, Sums: v.Truth.Sums(summary.Buckets),
	}
}

// askToCompare asks the node that the link is connected to, or any other.
func (l *link) askToCompare(ctx context.Context, s *linkState, q peer.Query) (origin.Comparison, error) {
	addresses := l.addresses
	if s.connected && s.address != "" {
		addresses = []string{s.address}
	}
	var last error
	for _, a := range addresses {
		c, err := l.mesh.client.Verify(ctx, a, q)
		var e *api.Error
		switch {
		case err == nil:
			return c, nil
		case errors.As(err, &e) && (e.Code == api.CodeNotFound || e.Code == api.CodeMethodNotAllowed):
			return c, &api.Error{
				Code: api.CodeUnsupported, Detail: "the federation of " + string(l.peer) + " is of an older version and does not compare",
				Remedy: "upgrade it; the digests of every heartbeat are compared all the same",
			}
		case errors.As(err, &e):
			return c, e
		}
		last = err
	}
	return origin.Comparison{}, &api.Error{
		Code: api.CodeUnavailable, Detail: fmt.Sprintf("the federation of %s cannot be asked: %s", l.peer, last),
		Remedy: "see \"nearside federation status\" for the state of the link",
	}
}

// contrast puts what is held and what the origin says side by side.
func contrast(v *replica.View, c origin.Comparison) api.Verification {
	out := api.Verification{
		Region: v.Region, Held: v.Version, Origin: api.Version{Region: v.Region, Epoch: c.Epoch, Revision: c.Revision},
		Digest: v.Digest.String(), OriginDigest: c.Digest.String(), Rows: v.Rows, OriginRows: c.Rows,
		Moving: c.Moving, More: c.More, Quarantined: quarantinedRows(v), HeldBack: v.Held, Differences: []api.RowDifference{},
	}
	switch {
	case c.Digest == v.Digest && c.Rows == v.Rows:
		out.Result, out.Moving = api.VerifyEqual, 0
		return out
	case !c.Follows:
		out.Result = api.VerifyMoving
		return out
	}
	theirs := make(map[string]summary.Hash, len(c.Marks))
	for _, m := range c.Marks {
		theirs[m.Key] = m.Hash
	}
	moving := make(map[string]struct{}, len(c.Changed))
	for _, k := range c.Changed {
		moving[k] = struct{}{}
	}
	differ := func(d api.RowDifference) {
		if len(out.Differences) < MaxDifferences {
			out.Differences = append(out.Differences, d)
		} else {
			out.More = true
		}
	}
	for k, e := range v.Truth.All {
		key := replica.FormatKey(k)
		h, there := theirs[key]
		delete(theirs, key)
		_, moves := moving[key]
		switch {
		case moves, !c.Buckets.Holds(k), there && h == e.Hash:
		case there:
			differ(api.RowDifference{Row: key, Kind: api.RowDifferent, Held: e.Hash.String(), Origin: h.String()})
		default:
			differ(api.RowDifference{Row: key, Kind: api.RowExtra, Held: e.Hash.String()})
		}
	}
	for key, h := range theirs {
		differ(api.RowDifference{Row: key, Kind: api.RowMissing, Origin: h.String()})
	}
	slices.SortFunc(out.Differences, func(a, b api.RowDifference) int { return strings.Compare(a.Row, b.Row) })
	switch {
	case len(out.Differences) == 0 && (out.Moving > 0 || out.More):
		out.Result = api.VerifyMoving
	default:
		out.Result = api.VerifyDiffers
	}
	return out
}
