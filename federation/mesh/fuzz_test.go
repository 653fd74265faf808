package mesh

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// FuzzReplicaFile reads a replica's file of whatever content, also when its checksum is
// right: a replica or an error, never a panic.
func FuzzReplicaFile(f *testing.F) {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", "{}\n", `{"v":1,"origin":"eu-west","epoch":"1-0000000000000001","revision":4}` + "\n", "\x00\xff"} {
		f.Add([]byte(s), true)
		f.Add(z.EncodeAll([]byte(s), nil), false)
	}
	path := filepath.Join(f.TempDir(), "eu-west.replica")
	f.Fuzz(func(t *testing.T, content []byte, pack bool) {
		if pack {
			content = z.EncodeAll(content, nil)
		}
		body := append([]byte(fileMagic), content...)
		if err := os.WriteFile(path, binary.BigEndian.AppendUint64(bytes.Clone(body), xxhash.Sum64(body)), 0o600); err != nil {
			t.Fatal(err)
		}
		r, _, err := readFile(path, "us-east", "eu-west", time.Now())
		if (r == nil) != (err != nil) {
			t.Errorf("%v, %v", r, err)
		}
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, _, err := readFile(path, "us-east", "eu-west", time.Now()); r != nil || err == nil {
			t.Errorf("without its checksum: %v, %v", r, err)
		}
	})
}
