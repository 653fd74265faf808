package summary

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/nearside/nearside/sdk/api"
)

// Hash identifies the content of one row: the bytes that Encode returns.
type Hash uint64

// Encode returns the wire form of s without its revision and load, and the hash of those bytes. The
// revision stays outside so that a region which lost its history, but not its instances,
// has the same rows as before. Hashing the bytes, not the fields, lets a reader check rows
// of a newer version that have fields it does not know.
func Encode(s *api.Summary) ([]byte, Hash) {
	bare := *s
	bare.Revision, bare.Load = 0, 0
	// Marshal cannot fail here: the type holds only strings, numbers, and maps and lists of them.
	body, _ := json.Marshal(&bare)
	return body, HashOf(body)
}

// HashOf returns the hash of a row's body as received.
func HashOf(body []byte) Hash { return Hash(xxhash.Sum64(body)) }

// String returns 16 hex digits.
func (h Hash) String() string { return Digest(h).String() }

// MarshalText writes the text form.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads the text form.
func (h *Hash) UnmarshalText(b []byte) error { return (*Digest)(h).UnmarshalText(b) }

// Digest identifies a set of rows regardless of their order: the sum of their hashes modulo
// 2^64. It guards against loss and mistakes, not against an adversary: a peer is the
// authority over its own rows, and what others pass on of them is held to a Seal. The digest of no rows is 0.
type Digest uint64

// Add returns d with a row added.
func (d Digest) Add(h Hash) Digest { return d + Digest(h) }

// Remove returns d without a row that was in it.
func (d Digest) Remove(h Hash) Digest { return d - Digest(h) }

// String returns 16 hex digits.
func (d Digest) String() string { return fmt.Sprintf("%016x", uint64(d)) }

// MarshalText writes the text form.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the text form.
func (d *Digest) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 16, 64)
	if err != nil || len(b) != 16 {
		return fmt.Errorf("digest %s is not 16 hex digits", api.Quote(string(b)))
	}
	*d = Digest(v)
	return nil
}

// score is the rendezvous weight of an instance for a reader.
func score(key api.ServiceKey, reader api.Region, id api.InstanceID) uint64 {
	b := make([]byte, 0, 128)
	for _, part := range []string{string(key.Namespace), string(key.Service), string(reader), string(id)} {
		b = append(append(b, part...), '|')
	}
	return xxhash.Sum64(b)
}

// specHash is a hash over what the instances are: everything a caller could act on, of all
// of them and not only of the fail-over set. Times, notes, incarnations and revisions are
// left out: they change without changing the service.
func specHash(instances []*api.Instance) string {
	sorted := slices.Clone(instances)
	slices.SortFunc(sorted, func(a, b *api.Instance) int { return strings.Compare(string(a.ID), string(b.ID)) })
	f := fields{Digest: xxhash.New()}
	for _, i := range sorted {
		f.text(string(i.ID), i.Address, string(i.Zone), i.Version, string(i.Status))
		f.number(uint64(i.Port), uint64(i.Weight), uint64(i.Capacity), uint64(len(i.Ports)), uint64(len(i.Tags)), uint64(len(i.Metadata)))
		for _, name := range sortedKeys(i.Ports) {
			f.text(name)
			f.number(uint64(i.Ports[name]))
		}
		f.text(i.Tags...)
		for _, k := range sortedKeys(i.Metadata) {
			f.text(k, i.Metadata[k])
		}
	}
	return Digest(f.Sum64()).String()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// fields feeds values into a hash so that no two lists of values look alike.
type fields struct{ *xxhash.Digest }

func (f fields) text(values ...string) {
	for _, v := range values {
		f.number(uint64(len(v)))
		_, _ = f.WriteString(v) // never fails
	}
}

func (f fields) number(values ...uint64) {
	var b [8]byte
	for _, v := range values {
		binary.LittleEndian.PutUint64(b[:], v)
		_, _ = f.Write(b[:]) // never fails
	}
}
