package etcdnode

import (
	"testing"
)

func TestStarts(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		n, err := Start(t.Context(), Config{Region: "eu-west", Node: "n1", DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
