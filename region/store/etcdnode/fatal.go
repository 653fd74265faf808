package etcdnode

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"go.uber.org/zap/zapcore"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/etcdcluster"
	"github.com/nearside/nearside/region/store/internal/zaplog"
)

// ErrFatal: the embedded etcd gave up. Its data is safe up to the last acknowledged write,
// and nothing is acknowledged any more; only a new process can run it again.
var ErrFatal = errors.New("the embedded etcd ended")

// kinds are the errors of Start by their names. The first that applies is the kind.
var kinds = []struct {
	name string
	err  error
}{
	{"locked", ErrLocked},
	{"not_writable", ErrNotWritable},
	{"no_space", ErrNoSpace},
	{"corrupt", ErrCorrupt},
	{"wrong_region", store.ErrWrongRegion},
	{"not_member", etcdcluster.ErrNotMember},
	{"address", etcdcluster.ErrAddress},
	{"fatal", ErrFatal},
}

// fatalHook keeps etcd from ending our process. etcd answers what it cannot handle (a full
// disk, a broken log) with a fatal or panicking log entry, of which it has some 130, and
// expects never to run past it. So the goroutine that made the entry ends here: etcd stops
// working, calls to it run into their time-outs, and the first cause is reported.
type fatalHook struct {
	first chan error // buffered 1: the first cause
}

func newFatalHook() *fatalHook { return &fatalHook{first: make(chan error, 1)} }

// OnWrite implements zapcore.CheckWriteHook.
func (h *fatalHook) OnWrite(ce *zapcore.CheckedEntry, fields []zapcore.Field) {
	text := ce.Message
	for _, f := range fields {
		if f.Key == "path" && f.Type == zapcore.StringType {
			text += " " + f.String
		}
	}
	if cause := zaplog.ErrorText(fields); cause != "" {
		text += ": " + cause
	}
	h.report(text)
	runtime.Goexit()
}

func (h *fatalHook) report(text string) {
	select {
	case h.first <- fmt.Errorf("%w: %s", ErrFatal, text):
	default: // the later ones are consequences of the first
	}
}

// damaged reports whether a cause of etcd's speaks of broken files. etcd has no errors for
// most of them, only words.
func damaged(cause string) bool {
	for _, w := range []string{
		"invalid database", "failed to open database", "file size too small", "checksum", "version mismatch", "freelist", // bbolt
		"crc mismatch", "failed to repair WAL", "failed to open WAL", "failed to read WAL", "wal: ", "unexpected EOF", // log
		"out of range", "snap: ", "failed to recover", "failed to unmarshal", // raft, snapshots, entries
	} {
		if strings.Contains(cause, w) {
			return true
		}
	}
	return false
}

// meaningless tells the warnings and errors of which an operator learns nothing.
func (n *Node) meaningless(message, errText string) bool {
	if always(message, errText) || n.cfg.Cluster != nil && ofPeers(message) {
		return true
	}
	select {
	case <-n.closing: // what etcd was about to do is cut short, as we asked
		return strings.Contains(errText, "request cancelled") || strings.Contains(errText, "server stopped")
	default:
		return false
	}
}

// always tells those that etcd logs whenever it starts or closes.
func always(message, errText string) bool {
	if strings.Contains(message, "failed to publish local member") && strings.Contains(errText, "too many requests") {
		return true // it asks again and again while a long log is applied after a kill
	}
	for _, m := range []string{
		"Running http and grpc server on single port", // on a unix socket that is ours alone
		"simple token is not cryptographically signed",
		"accept loop stopping",
		"pending configuration changes to apply", // a start on a busy machine: it campaigns again 0.2 s later
	} {
		if strings.Contains(message, m) {
			return true
		}
	}
	for _, e := range []string{
		"use of closed network connection",
		"mux: server closed",
		"mux: listener closed",
		"http: Server closed",
		"grpc: the server has been stopped",
		"context canceled",
		"missing term information", // the storage version is looked up before the first entry is applied, and again later
	} {
		if strings.Contains(errText, e) {
			return true
		}
	}
	return false
}

// ofPeers tells what a member says again and again of another one that is away; upkeep says it
// once.
func ofPeers(message string) bool {
	for _, m := range []string{
		"closed TCP streaming connection", "lost TCP streaming connection", "established TCP streaming connection",
		"peer became inactive", "prober detected unhealthy status", "failed to reach the peer URL", "failed to get version",
		"failed to find remote peer in cluster", "dropped internal Raft message", "rejected stream from remote peer",
		"leadership transfer failed",
	} {
		if strings.Contains(message, m) {
			return true
		}
	}
	return false
}
