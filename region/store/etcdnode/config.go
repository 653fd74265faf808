package etcdnode

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/nearside/nearside/region/store/etcdcluster"
	"github.com/nearside/nearside/sdk/api"
)

// Defaults and bounds of Config.
const (
	// DefaultQuota holds about 50,000 instances with their recent history many times over.
	DefaultQuota = 512 << 20
	MinQuota     = 16 << 20
	MaxQuota     = 8 << 30 // etcd's own advice

	// DefaultRetention is how much history is kept for watchers that resume.
	DefaultRetention = 5 * time.Minute
	minRetention     = time.Minute // a negative one crashed etcd (GHSA-pm3m-32r3-7mfh)
	maxRetention     = 24 * time.Hour

	defaultStartTimeout = 20 * time.Second
	// fatalGrace is how long a start that etcd gave up on may take to come back from it.
	fatalGrace = 500 * time.Millisecond
	// A log that stays behind its database for lostLooks looks is damaged: a sound one is
	// ahead of it from the moment the member leads.
	lookInterval = 500 * time.Millisecond
	lostLooks    = 3
	closeTimeout = 10 * time.Second // etcd waits up to 5.4 s for open streams

	// DefaultReserve is a log segment of 64 MB, a step of the database's file of 16 MiB, and
	// what the fastest writer adds between two looks at the disk.
	DefaultReserve = 128 << 20
	minReserve     = 16 << 20
	maxReserve     = 1 << 40

	defaultUpkeep = 2 * time.Second
)

// Config says which member to run, and where.
type Config struct {
	Region api.Region // required; stamped in the data directory at the first start
	Node   string     // required; the member's name: 1 to 128 of A-Z a-z 0-9 . _ : -

	// DataDir is the member's own directory; made with mode 0700 when missing. It must be
	// on a local disk. About 150 MB are taken at the first start (etcd preallocates its log).
	DataDir string

	// Cluster makes the member one of several, of which the region keeps a quorum; nil means that
	// it is alone. Its Region and Node must be those above. A data directory of a single member may
	// become that of a cluster of one, to which others are added.
	Cluster *etcdcluster.Config

	// QuotaBytes bounds the database, 16 MiB to 8 GiB; 0 means DefaultQuota. Past it every
	// put is refused until upkeep has made room. Raise it for more than about 100,000 instances or heavy churn:
	// the history of one retention must fit too.
	QuotaBytes int64

	// ReserveBytes is the room that stays free on the disk of DataDir, 16 MiB to 1 TiB: with
	// less, Room refuses what grows, long before etcd would end on a full disk. 0 means
	// DefaultReserve.
	ReserveBytes int64

	// UpkeepInterval is how often the member looks after its database; 0 means 2 s. Negative
	// means never (tests): nothing is compacted, defragmented or disarmed then.
	UpkeepInterval time.Duration

	// Retention is how long history is kept, 1 min to 24 h; 0 means DefaultRetention. Longer
	// lets watchers resume after a longer absence, and costs disk in proportion to churn.
	Retention time.Duration

	// CompactEvery, when not 0, drops all history this often whatever its age: for tests of
	// whoever follows it. It takes the place of UpkeepInterval.
	CompactEvery time.Duration

	// StartTimeout bounds the start beside ctx; 0 means 20 s. A start replays the log of the
	// last 10,000 writes, which takes well under a second on a healthy disk. In a cluster it
	// bounds the start of etcd alone: Start does not wait for the others.
	StartTimeout time.Duration

	// LockPatience is how long Start waits for a directory that another process uses; 0 means not at
	// all. A member whose parent was killed needs a moment to end.
	LockPatience time.Duration

	// QuietDisk: the log says nothing of the room on the disk, as who started this process watches
	// it (Reserve).
	QuietDisk bool

	salvage bool // run on a copy of a member of many, alone

	// Logger may be nil. etcd's info entries arrive as debug.
	Logger *slog.Logger `json:"-"`
}

func (c Config) withDefaults() Config {
	if c.QuotaBytes == 0 {
		c.QuotaBytes = DefaultQuota
	}
	if c.Retention == 0 {
		c.Retention = DefaultRetention
	}
	if c.ReserveBytes == 0 {
		c.ReserveBytes = DefaultReserve
	}
	if c.CompactEvery > 0 {
		c.UpkeepInterval = c.CompactEvery
	}
	if c.UpkeepInterval == 0 {
		c.UpkeepInterval = defaultUpkeep
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = defaultStartTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate expects the defaults to be filled in.
func (c Config) validate() error {
	if err := api.CheckRegion(string(c.Region)); err != nil {
		return err
	}
	if !api.ValidInstanceID(c.Node) {
		return fmt.Errorf("node name %s is not valid: use 1 to 128 of A-Z, a-z, 0-9, '.', '_', ':' and '-'", api.Quote(c.Node))
	}
	if c.DataDir == "" {
		return fmt.Errorf("no data directory is given: choose one with --data-dir")
	}
	if c.QuotaBytes < MinQuota || c.QuotaBytes > MaxQuota {
		return fmt.Errorf("store quota of %d bytes: choose %d (16 MiB) to %d (8 GiB)", c.QuotaBytes, MinQuota, int64(MaxQuota))
	}
	if c.ReserveBytes < minReserve || c.ReserveBytes > maxReserve {
		return fmt.Errorf("disk reserve of %d bytes: choose %d (16 MiB) to %d (1 TiB)", c.ReserveBytes, minReserve, int64(maxReserve))
	}
	if c.Retention < minRetention || c.Retention > maxRetention {
		return fmt.Errorf("store history of %s: choose %s to %s", c.Retention, minRetention, maxRetention)
	}
	if cl := c.Cluster; cl != nil {
		if cl.Region != c.Region || cl.Node != c.Node {
			return fmt.Errorf("the cluster's region and node are %s and %s, and the member's %s and %s", cl.Region, cl.Node, c.Region, c.Node)
		}
		if err := cl.Validate(); err != nil {
			return err
		}
	}
	if c.StartTimeout < 0 {
		return fmt.Errorf("start timeout of %s: it must not be negative", c.StartTimeout)
	}
	return nil
}
