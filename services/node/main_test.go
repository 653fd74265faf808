package node

import (
	"fmt"
	"os"
	"testing"

	"github.com/nearside/nearside/region/store/etcdchild"
)

// The nodes of these tests keep their records as real ones do, in a child of the same program:
// this one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == etcdchild.Verb {
		if err := etcdchild.Main(os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
