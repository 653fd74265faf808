package etcdnode

import "testing"

// A node that applies a long log after a kill is not failing: its attempts to publish
// itself meanwhile are no warnings. One that cannot publish for another reason is.
func TestPublishingWhileTheLogIsAppliedIsNoWarning(t *testing.T) {
	const m = "failed to publish local member to cluster through raft"
	if !always(m, "etcdserver: too many requests") {
		t.Error("it is a warning while the log is applied")
	}
	if always(m, "etcdserver: request timed out") {
		t.Error("it is none when it times out")
	}
}
