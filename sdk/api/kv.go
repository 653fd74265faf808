package api

import (
	"fmt"
	"strings"
)

// KVEntry is one key of a region's key-value records, in GET /v1/kv/{key}?meta=true, in lists
// and in watches.
type KVEntry struct {
	Key       string    `json:"key"`
	Namespace Namespace `json:"ns"`
	// Value is nil where it is not told (?keys=true, and deletes in a watch). JSON has it in base64.
	Value []byte `json:"value,omitzero"`
	Size  int    `json:"size"` // of the value, in bytes
	// Revision is of the last write of the key, Created of the first since it was deleted last.
	Revision uint64 `json:"revision"`
	Created  uint64 `json:"created_revision"`
	// Epoch is the history that the revisions are of. Told for a single key; lists and frames
	// have it in their headers and versions.
	Epoch Epoch `json:"epoch,omitzero"`
}

// KVList is the body of GET /v1/kv/?prefix=: the keys in order, byte by byte.
type KVList struct {
	Namespace Namespace `json:"ns"`
	Prefix    string    `json:"prefix"`
	Entries   []KVEntry `json:"entries"`
	Cursor    string    `json:"cursor,omitempty"` // give it back as ?cursor= for the next page
}

// KVWritten answers a PUT of a key.
type KVWritten struct {
	Key       string    `json:"key"`
	Namespace Namespace `json:"ns"`
	Revision  uint64    `json:"revision"`
	Created   uint64    `json:"created_revision"`
	Epoch     Epoch     `json:"epoch,omitzero"` // of the revisions: give both back as ?cas=&epoch=
}

// ValidKVKey reports whether s may be a key: 1 to 512 of A-Z a-z 0-9 . _ : / - with no
// segment between slashes empty, "." or "..": those mean something else to proxies.
func ValidKVKey(s string) bool {
	if len(s) == 0 || len(s) > MaxKVKeyLength || !kvBytes(s) {
		return false
	}
	for segment := range strings.SplitSeq(s, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

func kvBytes(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9',
			c == '.', c == '_', c == ':', c == '/', c == '-':
		default:
			return false
		}
	}
	return true
}

// CheckKVKey validates a key.
func CheckKVKey(s string) error {
	if ValidKVKey(s) {
		return nil
	}
	return FieldError("key", fmt.Sprintf("key %s is not valid", Quote(s)), fmt.Sprintf(
		"use 1 to %d of A-Z, a-z, 0-9, '.', '_', ':', '-' and '/', and no empty, \".\" or \"..\" part between slashes", MaxKVKeyLength))
}

// CheckKVPrefix validates the beginning of keys; it may end anywhere in one, and be empty.
func CheckKVPrefix(s string) error {
	if len(s) <= MaxKVKeyLength && kvBytes(s) {
		return nil
	}
	return FieldError("prefix", fmt.Sprintf("prefix %s is not valid", Quote(s)), fmt.Sprintf(
		"use at most %d of A-Z, a-z, 0-9, '.', '_', ':', '-' and '/'", MaxKVKeyLength))
}

// PathKVKey returns the path of a valid key.
func PathKVKey(key string) string { return PathKV + key } // no character of a key needs an escape
