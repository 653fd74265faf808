package replica

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// SavedFormat is the version of the written form of a replica.
const SavedFormat = 1

// Saved is a replica as it is kept between runs. It shares only immutable parts with the
// replica, so it may be written while that goes on.
type Saved struct {
	header savedHeader
	truth  *Table
	held   []heldRow
}

type savedHeader struct {
	Format    int            `json:"format"`
	Region    api.Region     `json:"region"`
	Epoch     api.Epoch      `json:"epoch"`
	Revision  uint64         `json:"revision"`
	Complete  bool           `json:"complete"`
	Term      uint64         `json:"term,omitempty"`
	Leaving   bool           `json:"leaving,omitempty"`
	Gone      bool           `json:"gone,omitempty"`
	Addresses []string       `json:"addresses,omitempty"`
	Drained   float64        `json:"drained,omitempty"`
	Rows      int            `json:"rows"`
	Held      int            `json:"held"`
	Digest    summary.Digest `json:"digest"`
}

// savedRow is a line after the header: first the rows, then those held back. Body is null
// for a row that was never usable; Hash still counts.
type savedRow struct {
	Hash     summary.Hash    `json:"hash"`
	Revision uint64          `json:"revision"`
	Key      string          `json:"key"`
	Why      string          `json:"why,omitempty"` // quarantined
	Body     json.RawMessage `json:"body"`
}

// Save returns what to write, or nil when nothing is known yet.
func (r *Replica) Save() *Saved {
	if r.version.IsZero() {
		return nil
	}
	s := &Saved{truth: r.truth, header: savedHeader{
		Format: SavedFormat, Region: r.origin, Epoch: r.version.Epoch, Revision: r.version.Revision,
		Complete: r.complete, Addresses: r.addresses, Drained: r.drained, Rows: r.truth.Len(), Held: len(r.held), Digest: r.truth.Digest(),
		Term: r.term, Leaving: !r.leaves.IsZero(), Gone: r.gone,
	}}
	for _, h := range r.held {
		s.held = append(s.held, h)
	}
	return s
}

// Encode writes s as lines of JSON.
func (s *Saved) Encode(w io.Writer) error {
	enc := json.NewEncoder(w)
	if err := enc.Encode(s.header); err != nil {
		return err
	}
	write := func(k api.ServiceKey, e *Entry) error {
		row := savedRow{Hash: e.Hash, Revision: e.Revision, Key: FormatKey(k), Why: e.Quarantined, Body: e.body()}
		if row.Body == nil && e.Summary != nil {
			row.Body, _ = summary.Encode(e.Summary) // quarantined: the last good one
		}
		return enc.Encode(row)
	}
	for k, e := range s.truth.All {
		if err := write(k, e); err != nil {
			return err
		}
	}
	for _, h := range s.held {
		if err := write(h.entry.Summary.Key(), h.entry); err != nil {
			return err
		}
	}
	return nil
}

// ErrSaved is wrapped by every error of Restore.
var ErrSaved = errors.New("the saved replica cannot be used")

// Restore reads what Encode wrote and returns the replica of origin that it was. age is how
// old the file seems to be, for display; whatever it is, the replica counts as suspect at
// best until the origin confirms it. Rows that were held back are held for HoldFor again.
func Restore(self, origin api.Region, in io.Reader, age time.Duration, now time.Time) (*Replica, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrSaved, fmt.Sprintf(format, args...))
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), MaxFrameBytes)
	if !lines.Scan() {
		return nil, bad("it is empty")
	}
	var h savedHeader
	if err := json.Unmarshal(lines.Bytes(), &h); err != nil {
		return nil, bad("header: %s", cut(err.Error()))
	}
	switch {
	case h.Format != SavedFormat:
		return nil, bad("format %d, this version reads %d", h.Format, SavedFormat)
	case h.Region != origin || origin == self:
		return nil, bad("it is of region %s", api.Quote(string(h.Region)))
	case h.Epoch.IsZero():
		return nil, bad("it has no epoch")
	case h.Rows < 0 || h.Rows > MaxRows || h.Held < 0 || h.Held > MaxRows:
		return nil, bad("it claims %d rows", h.Rows)
	}
	r := New(self, origin, now)
	r.age = max(age, 0)
	r.version = api.Version{Region: origin, Epoch: h.Epoch, Revision: h.Revision}
	r.complete, r.addresses, r.term = h.Complete, usableAddresses(h.Addresses), h.Term
	r.drained = percentage(h.Drained)
	if h.Leaving {
		r.leaves = now.Add(ForgetGrace)
	}
	if h.Gone {
		r.gone, r.want = true, wantEverything
	}
	e := newEdit(&Table{})
	for n := range h.Rows + h.Held {
		if !lines.Scan() {
			return nil, bad("it ends after %d of %d rows", n, h.Rows+h.Held)
		}
		key, entry, err := readSavedRow(origin, lines.Bytes())
		switch {
		case err != nil:
			return nil, bad("row %d: %s", n, err)
		case n < h.Rows:
			e.put(key, entry)
			if entry.raw != nil || entry.Quarantined != "" {
				r.want = wantEverything
			}
		case entry.Summary != nil:
			r.held[key] = heldRow{entry: entry, until: now.Add(HoldFor)}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, bad("%s", err)
	}
	r.truth = e.done()
	if r.truth.Len() != h.Rows || r.truth.Digest() != h.Digest {
		return nil, bad("its rows do not match its digest")
	}
	r.visible = r.truth
	if len(r.held) > 0 {
		r.visible = r.merge()
	}
	return r, nil
}

func readSavedRow(origin api.Region, line []byte) (api.ServiceKey, *Entry, error) {
	var row savedRow
	if err := json.Unmarshal(line, &row); err != nil {
		return api.ServiceKey{}, nil, errors.New(cut(err.Error()))
	}
	key, err := ParseKey(row.Key)
	if err != nil {
		return key, nil, err
	}
	e := &Entry{Hash: row.Hash, Revision: row.Revision, Quarantined: row.Why}
	if len(row.Body) > 0 && string(row.Body) != "null" {
		k, read, err := readRow(origin, Row{Revision: row.Revision, Body: row.Body})
		if err != nil || k != key {
			return key, nil, errors.New("its body is of another service")
		}
		e.Summary, e.raw, e.size, e.sum = read.Summary, read.raw, read.size, read.sum
		if row.Why == "" {
			e.Quarantined = read.Quarantined
		} else {
			e.raw = nil
		}
	}
	return key, e, nil
}
