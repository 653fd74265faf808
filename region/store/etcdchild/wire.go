package etcdchild

import (
	"log/slog"

	"github.com/nearside/nearside/region/store/etcdnode"
)

// Verb is the only argument of the child.
const Verb = "etcd-member"

// stopWord is the line that asks the child to end in good order.
const stopWord = "stop"

// maxLine bounds a line of the orders, the reports and the log.
const maxLine = 64 << 10

// orders is the first line of the child's standard input.
type orders struct {
	Member   etcdnode.Config `json:"member"`
	LogLevel slog.Level      `json:"log_level"`
}

// report is a line of the child's standard output; one field is set.
type report struct {
	Waiting bool            `json:"waiting,omitempty"` // it has begun, and serves once a quorum of its cluster does
	Ready   *ready          `json:"ready,omitempty"`
	Failed  *failure        `json:"failed,omitempty"` // it did not start
	Ended   *failure        `json:"ended,omitempty"`  // etcd ended by itself
	Space   *etcdnode.Space `json:"space,omitempty"`
}

type ready struct {
	Endpoint string `json:"endpoint"`
}

// failure carries an error of etcdnode from one process to the other: its words, and which
// one it is. It implements error.
type failure struct {
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
}

func newFailure(err error) *failure { return &failure{Kind: etcdnode.Kind(err), Text: err.Error()} }

// Error returns the words of the child.
func (f *failure) Error() string { return f.Text }

// Unwrap returns the error of etcdnode that it is, or nil.
func (f *failure) Unwrap() error { return etcdnode.ErrorOf(f.Kind) }
