package mesh

import (
	"fmt"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// origin is the public form of what is known of the link's region, with the verdict on it.
func (l *link) origin(v *replica.View, now time.Time) api.Origin {
	o := v.Origin(now)
	if d := l.verdict.Load(); d != nil {
		o.Down = d.Down
	}
	return o
}

// info describes the link for the API. words and bytes are those of the region's readers.
func (l *link) info(now time.Time, words []peer.Word, bytesOut uint64) api.LinkInfo {
	s := l.state.Load()
	v := &s.view
	i := api.LinkInfo{
		Peer: l.peer, Addresses: l.addresses, State: linkUnreachable, Since: s.since, LastError: s.lastError,
		Attempts: s.attempts, BytesIn: l.bytes.Load(), Frames: l.frames.Load(), Snapshots: l.snapshots.Load(),
		Services: v.Rows, Digest: v.Digest.String(), Replica: l.origin(v, now),
		Node: s.node, Proto: v.Proto, Term: v.Term, BytesOut: bytesOut, Unheard: l.unheard.Load(),
		Quarantined: v.Quarantined, QuarantinedRows: quarantinedRows(v), Held: v.Held,
		Canary: s.canary.info(now), PeerView: l.peerView(now, words), Verdict: l.verdict.Load(), Resync: l.resync.Load(), Details: l.mesh.details.count(l.peer),
	}
	i.RTTMS, i.Duplicate = i.Replica.RTTMS, l.doubles.known()
	if s.via != "" {
		i.Via, i.Depth = s.via, v.Depth
	}
	if s.connected {
		i.State = linkConnected
		if v.Carried > peer.SilenceLimit {
			i.LastError = fmt.Sprintf("the peer's federation has not heard of its own region for %s", v.Carried.Round(time.Second))
		}
		if v.Head > v.Version.Revision {
			i.HeadLag = v.Head - v.Version.Revision
			i.BehindMS = max(now.Sub(s.behind).Milliseconds(), 1)
		}
	}
	if v.Held > 0 {
		i.HeldForMS = max(v.HeldUntil.Sub(now).Milliseconds(), 1)
	}
	for why, n := range v.Refused {
		if i.RefusedBy == nil {
			i.RefusedBy = make(map[string]uint64, len(v.Refused))
		}
		i.RefusedBy[string(why)] = n
		i.Refused += n
	}
	return i
}

// quarantinedRows names some of the rows whose newest form is not used.
func quarantinedRows(v *replica.View) (out []api.QuarantinedRow) {
	if v.Quarantined == 0 {
		return nil
	}
	for k, e := range v.Truth.All {
		if e.Quarantined == "" {
			continue
		}
		if out = append(out, api.QuarantinedRow{Row: replica.FormatKey(k), Reason: e.Quarantined}); len(out) == api.MaxQuarantinedShown {
			break
		}
	}
	return out
}

// peerView is what the peer knows of us: by its acks on the streams that it reads from us,
// and by what its heartbeats say, whichever is younger.
func (l *link) peerView(now time.Time, words []peer.Word) *api.PeerView {
	var out *api.PeerView
	take := func(state api.AgeState, age, said time.Duration, revision uint64) {
		if said >= wordHolds || out != nil && said.Milliseconds() >= out.SaidMS {
			return
		}
		out = &api.PeerView{State: state, AgeMS: age.Milliseconds(), Revision: revision, SaidMS: said.Milliseconds()}
	}
	for _, w := range words {
		if w.Reader == l.peer && w.State != "" {
			take(w.State, time.Duration(w.AgeMS)*time.Millisecond, w.Age, w.Revision)
		}
	}
	link := ""
	if h := l.heard.Load(); h != nil && l.state.Load().connected {
		if s, ok := h.say(l.mesh.cfg.Region); ok {
			age := time.Duration(s.AgeMS) * time.Millisecond
			take(replica.StateOf(age), age, now.Sub(h.at), s.Revision)
			link = s.Link
		}
	}
	if out == nil {
		return nil
	}
	age := time.Duration(out.AgeMS) * time.Millisecond
	switch {
	case link == api.LinkDown:
		out.Complaint = fmt.Sprintf("%s does not reach our federation; what it knows of us is %s old", l.peer, age.Round(100*time.Millisecond))
		if out.State == api.AgeFresh {
			out.Complaint += ", by way of another region"
		}
	case out.State != api.AgeFresh:
		out.Complaint = fmt.Sprintf("%s holds what it knows of us to be %s, %s old: our words do not arrive there in time", l.peer, out.State, age.Round(100*time.Millisecond))
	}
	return out
}
