package etcdstore

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Config says where the store is and whose it is.
type Config struct {
	// Endpoints of one etcd cluster: "unix:///path/etcd.sock" of an etcdnode, or
	// "https://host:2379". Several members are used in turn. Required.
	Endpoints []string

	// Region whose records these are. Required; stamped in the store when it is first
	// opened, and compared ever after.
	Region api.Region

	// TLS for https endpoints; nil means the system's roots and no client certificate.
	TLS *tls.Config

	// Room is asked before every Commit, with whether the commit holds puts; its error is the
	// Commit's, and nothing is sent to etcd then. It must return at once. nil means that there
	// always is room. See etcdnode.Node.Room.
	Room func(grows bool) error

	// WhenFull says what helps when etcd's quota is reached; it ends the text of store.ErrFull. "" says nothing.
	WhenFull string

	// Lazy lets Open return without a word from etcd: the stamp is looked at by the first call that etcd
	// answers, and until then every call gets what Open would have returned.
	Lazy bool

	// Logger may be nil.
	Logger *slog.Logger

	// RequestTimeout bounds each request to etcd, and how long Open tries; 0 means 3 s.
	// Longer rides out slow disks, and makes callers wait longer for ErrUnavailable.
	RequestTimeout time.Duration
}

const defaultRequestTimeout = 3 * time.Second

func (c Config) withDefaults() Config {
	if c.RequestTimeout == 0 {
		c.RequestTimeout = defaultRequestTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	if len(c.Endpoints) == 0 {
		return errors.New("no etcd endpoint is given")
	}
	for _, e := range c.Endpoints {
		if e == "" {
			return errors.New("an etcd endpoint is empty: use https://host:2379 or unix:///path")
		}
	}
	if err := api.CheckRegion(string(c.Region)); err != nil {
		return err
	}
	if c.RequestTimeout < 0 {
		return fmt.Errorf("request timeout of %s: it must not be negative", c.RequestTimeout)
	}
	return nil
}
