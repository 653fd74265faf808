package events

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Each story is a list of events "kind subject", and the causes they get: "kind<-ref".
func TestCauses(t *testing.T) {
	for name, story := range map[string][][2]string{
		"drained, then gone, then back": {
			{"register orders/1 request", "request"},
			{"drain orders/1 request", "request"},
			{"deregister orders/1 request", "drained<-2"},
			{"register orders/1 request", "returned<-3"},
			{"register orders/1 new_incarnation", "new_incarnation<-4"},
		},
		"evicted and back": {
			{"register orders/1 request", "request"},
			{"evict orders/1 heartbeats_stopped", "heartbeats_stopped"},
			{"protection_on eu-west overdue_share", "overdue_share<-2"},
			{"evict orders/2 heartbeats_stopped", "held_too_long<-3"},
			{"protection_off eu-west within_share", "within_share<-3"},
			{"register orders/1 request", "returned<-2"},
			{"evict orders/3 heartbeats_stopped", "heartbeats_stopped"},
		},
		"status to and fro": {
			{"register orders/1 request", "request"},
			{"status orders/1 request", "request"},
			{"status orders/2 request", "request"},
			{"status orders/1 request", "request<-2"},
			{"evict orders/1 heartbeats_stopped", "heartbeats_stopped<-4"},
		},
		"removed by a liveness check": {
			{"register orders/1 request", "request"},
			{"status orders/1 checks", "checks"},
			{"protection_on eu-west overdue_share", "overdue_share"},
			{"evict orders/1 liveness_failed", "liveness_failed<-2"},
			{"register orders/1 request", "returned<-4"},
		},
		"links": {
			{"link_up us-east link_answers", "link_answers"},
			{"link_down us-east link_error", "link_error"},
			{"link_down ap-south goodbye", "goodbye"},
			{"link_up us-east link_answers", "link_answers<-2"},
		},
		"the store": {
			{"store_away eu-west store_error", "store_error"},
			{"epoch eu-west history_lost", "history_lost<-1"},
			{"store_back eu-west store_answers", "store_answers<-1"},
		},
		"protection ends with its run": {
			{"protection_on eu-west overdue_share", "overdue_share"},
			{"node_start n1 ", "first_start"},
			{"evict orders/1 heartbeats_stopped", "heartbeats_stopped"},
		},
		"nodes": {
			{"node_start n1 ", "first_start"},
			{"node_stop n1 signal", "signal"},
			{"node_start n1 ", "clean_start<-2"},
			{"node_start n1 ", "unclean_end<-3"},
			{"node_start n2 ", "first_start"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChain()
			for i, step := range story {
				f := strings.Split(step[0], " ")
				e := api.Event{ID: uint64(i + 1), Time: time.Unix(int64(i), 0), Kind: api.EventKind(f[0]), Subject: f[1], Cause: api.EventCause{Kind: f[2]}}
				c.link(&e)
				c.remember(&e)
				got := e.Cause.Kind
				if e.Cause.Ref != 0 {
					got += fmt.Sprintf("<-%d", e.Cause.Ref)
				}
				if got != step[1] {
					t.Errorf("%d %s: %s, want %s", i+1, step[0], got, step[1])
				}
			}
		})
	}
}

// P8: what the chain remembers is bounded.
func TestChainIsBounded(t *testing.T) {
	c := newChain()
	for i := range 5 * generation {
		e := api.Event{ID: uint64(i + 1), Kind: api.EventRegister, Subject: fmt.Sprintf("orders/%d", i)}
		c.link(&e)
		c.remember(&e)
	}
	if n := len(c.young) + len(c.old); n > 2*generation {
		t.Errorf("%d remembered", n)
	}
	if c.instance(fmt.Sprintf("orders/%d", 4*generation+1)).id == 0 {
		t.Error("a recent one is forgotten")
	}
}

// An eviction from before the clock was set back by a day is no reason for what happens now.
func TestCausesAfterAClockJump(t *testing.T) {
	c := newChain()
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	evict := api.Event{ID: 1, Kind: api.EventEvict, Subject: "orders/o-1", Time: at}
	c.remember(&evict)
	for _, tt := range []struct {
		later time.Duration
		ref   uint64
	}{{10 * time.Second, 1}, {-10 * time.Second, 1}, {2 * time.Minute, 0}, {24 * time.Hour, 0}, {-24 * time.Hour, 0}} {
		on := api.Event{ID: 2, Kind: api.EventProtectionOn, Subject: "eu-west", Time: at.Add(tt.later), Cause: api.EventCause{Kind: api.BecauseShare}}
		if c.link(&on); on.Cause.Ref != tt.ref {
			t.Errorf("%s later: refers to %d, want %d", tt.later, on.Cause.Ref, tt.ref)
		}
	}
}
