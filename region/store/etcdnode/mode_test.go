package etcdnode

import (
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// FuzzMembers: whatever the database of a member that was damaged says of the members, either all of
// them are read or none.
func FuzzMembers(f *testing.F) {
	f.Add([]byte(`{"id":1,"name":"n1","peerURLs":["http://127.0.0.1:1"]}`), []byte(`{"id":2,"name":"n2","peerURLs":[]}`))
	f.Add([]byte(`{"id":1`), []byte("{}"))
	f.Add([]byte("null"), []byte("\xff\x00"))
	f.Add([]byte(`{"id":"1"}`), []byte(`{"peerURLs":["://","\u0000"]}`))
	d := &dataDir{path: f.TempDir()}
	path := filepath.Join(d.etcd(), "member", "snap", "db")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, one, other []byte) {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("members"))
			if err == nil {
				err = b.Put([]byte("1"), one)
			}
			if err == nil {
				err = b.Put([]byte("2"), other)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if m := d.members(); len(m) != 0 && len(m) != 2 {
			t.Fatalf("%d members of 2 are read: %+v", len(m), m)
		}
		_ = d.checkMode(nil)
	})
}
