package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

const (
	prefix = "kv/"
	// form is the newest form of a record that this version reads and writes.
	form = 1
)

// pathOf returns what entries are sorted by, and with prefix the record's key. A namespace
// has no slash, so paths of different namespaces never mix.
func pathOf(ns api.Namespace, key string) string { return string(ns) + "/" + key }

// RecordKey returns the store key of a key.
func RecordKey(ns api.Namespace, key string) string { return prefix + pathOf(ns, key) }

// parseRecordKey returns the path in a record's key.
func parseRecordKey(recordKey string) (path string, err error) {
	path, _ = strings.CutPrefix(recordKey, prefix)
	ns, key, _ := strings.Cut(path, "/")
	if !api.ValidLabel(ns) || !api.ValidKVKey(key) {
		return "", fmt.Errorf("record key %s does not name a key", api.Quote(recordKey))
	}
	return path, nil
}

// encode returns the record of a value. created is 0 for a key that the commit creates.
func encode(value []byte, created uint64) []byte {
	b := make([]byte, 0, 1+binary.MaxVarintLen64+len(value))
	b = append(b, form)
	b = binary.AppendUvarint(b, created)
	return append(b, value...)
}

// decode reads a record made by encode. The entry shares the record's value.
func decode(rec store.Record, revision uint64) (*Entry, error) {
	path, err := parseRecordKey(rec.Key)
	if err != nil {
		return nil, err
	}
	if len(rec.Value) == 0 || rec.Value[0] != form {
		return nil, fmt.Errorf("the record is not of form %d, which this version reads", form)
	}
	created, n := binary.Uvarint(rec.Value[1:])
	if n <= 0 {
		return nil, errors.New("the record is cut off")
	}
	value := rec.Value[1+n:]
	if len(value) > api.MaxKVValueBytes {
		return nil, fmt.Errorf("the value has %d bytes, more than %d", len(value), api.MaxKVValueBytes)
	}
	if created == 0 || created > revision {
		// Created by this very commit; or before a backup was restored, which numbers anew: in
		// this history the key begins here.
		created = revision
	}
	return &Entry{
		path: path, ns: strings.IndexByte(path, '/'),
		Value: value[:len(value):len(value)], Revision: revision, Created: created,
	}, nil
}
