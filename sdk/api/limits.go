package api

import "time"

// Limits of the public surface. GET /v1/limits prints them.
const (
	MaxLabelLength      = 63  // characters of a namespace, service, region, zone or port name
	MaxInstanceIDLength = 128 // characters
	MaxAddressLength    = 253 // characters: a DNS name
	MaxVersionLength    = 64  // characters of an instance's version
	MaxNoteLength       = 256 // bytes
	MaxTags             = 32
	MaxTagLength        = 128 // bytes
	MaxPorts            = 16
	MaxMetadataKeys     = 64
	MaxMetadataBytes    = 16 << 10  // keys and values together
	MaxBodyBytes        = 256 << 10 // a request body
	MaxBatchItems       = 1_000
	MaxBatchBytes       = 1 << 20 // the body of a batch
	MaxWeight           = 10_000
	DefaultWeight       = 100
	MaxCapacity         = 1_000_000_000
	MaxIncarnation      = 1 << 62 // a time in nanoseconds fits, and something higher always exists
	MaxWatchServices    = 256     // services of one watch
	MaxListLimit        = 1_000
	MaxFilterLength     = 1_024 // bytes of a filter expression
	MaxFilterDepth      = 32    // levels of parentheses and braces in it
	DefaultListLimit    = 1_000
	DefaultServiceLimit = 10_000 // services of a list that names no limit: a count each, and who has few knows no pages
	MaxFailoverSet      = 32     // endpoints of a service that a region tells each other region
	MaxKVKeyLength      = 512
	MaxKVValueBytes     = 64 << 10
	// MaxKVPageBytes of values end a page of a list of keys, whatever its limit.
	MaxKVPageBytes = 4 << 20
)

// Bounds of the event log of a node.
const (
	MaxEventSubject = 2*MaxLabelLength + MaxInstanceIDLength + 2 // bytes
	MaxEventDetail  = 512                                        // bytes
	MaxEventActor   = 128                                        // bytes
	EventLogBytes   = 64 << 20                                   // on disk
	EventLogAge     = 7 * 24 * time.Hour
	// DefaultEventLimit is how many events an answer holds when no limit is given.
	DefaultEventLimit = 200
)

// Bounds of health checks.
const (
	MaxChecks                     = 8
	MaxCheckPath                  = 256 // bytes
	MaxCheckService               = 256 // bytes
	MaxCheckThreshold             = 100 // equal results in a row
	MinCheckInterval              = time.Second
	MaxCheckInterval              = time.Hour
	DefaultCheckInterval          = 10 * time.Second
	MinCheckTimeout               = 10 * time.Millisecond
	MaxCheckTimeout               = 30 * time.Second
	DefaultCheckTimeout           = time.Second
	DefaultFailuresBeforeCritical = 3
	MaxDeregisterAfter            = 7 * 24 * time.Hour
)

// Bounds of a heartbeat TTL.
const (
	MinTTL     = time.Second
	MaxTTL     = 24 * time.Hour
	DefaultTTL = 15 * time.Second
)

// Cadence of the registry; the SDK and its tests rely on them.
const (
	// BookmarkInterval is how often a quiet watch proves that it lives.
	BookmarkInterval = 5 * time.Second
	// MinBookmarkInterval is how often a watch that asks for it (?bookmark=) may be told.
	MinBookmarkInterval = time.Second
	// DeadlineGrace is added to a TTL before an instance counts as overdue: it covers
	// one lost packet and its retransmission.
	DeadlineGrace = time.Second
)

// Limits is the body of GET /v1/limits.
type Limits struct {
	LabelLength       int      `json:"label_length"`
	InstanceIDLength  int      `json:"instance_id_length"`
	AddressLength     int      `json:"address_length"`
	VersionLength     int      `json:"version_length"`
	NoteBytes         int      `json:"note_bytes"`
	Tags              int      `json:"tags"`
	TagBytes          int      `json:"tag_bytes"`
	Ports             int      `json:"ports"`
	MetadataKeys      int      `json:"metadata_keys"`
	MetadataBytes     int      `json:"metadata_bytes"`
	BodyBytes         int      `json:"body_bytes"`
	BatchItems        int      `json:"batch_items"`
	BatchBytes        int      `json:"batch_bytes"`
	Weight            int      `json:"weight"`
	Capacity          int      `json:"capacity"`
	TTLMin            Duration `json:"ttl_min"`
	TTLMax            Duration `json:"ttl_max"`
	TTLDefault        Duration `json:"ttl_default"`
	Checks            int      `json:"checks"`
	CheckIntervalMin  Duration `json:"check_interval_min"`
	CheckIntervalMax  Duration `json:"check_interval_max"`
	CheckTimeoutMax   Duration `json:"check_timeout_max"`
	WatchServices     int      `json:"watch_services"`
	Watches           int      `json:"watches"`
	ListLimit         int      `json:"list_limit"`
	FilterBytes       int      `json:"filter_bytes"`
	FilterDepth       int      `json:"filter_depth"`
	FailoverSet       int      `json:"failover_set"`
	EvictionShare     float64  `json:"eviction_share"`
	EvictionWindow    Duration `json:"eviction_window"`
	BookmarkInterval  Duration `json:"bookmark_interval"`
	EventDetailBytes  int      `json:"event_detail_bytes"`
	EventLogBytes     int      `json:"event_log_bytes"`
	EventLogAge       Duration `json:"event_log_age"`
	RequestsPerSecond int      `json:"requests_per_second,omitempty"`
	// Of one key and its value, and of all keys and values of the region together.
	KVKeyLength  int `json:"kv_key_length"`
	KVValueBytes int `json:"kv_value_bytes"`
	KVKeys       int `json:"kv_keys"`
	KVBytes      int `json:"kv_bytes"`
	// KVWriteBurst bytes may be written to keys at once, KVWriteRate per second from then on.
	KVWriteBurst int `json:"kv_write_burst_bytes"`
	KVWriteRate  int `json:"kv_write_bytes_per_second"`
	// Of the region's policies, of one policy as JSON, and of regions in one of its lists.
	Policies      int `json:"policies"`
	PolicyBytes   int `json:"policy_bytes"`
	PolicyRegions int `json:"policy_regions"`
	// Of the drain of a region: the time it may take, and its steps.
	DrainOverMax Duration `json:"drain_over_max"`
	DrainSteps   int      `json:"drain_steps"`
	// Of one what-if: the regions, zones and links that it takes away, and the services that it names.
	WhatIfLosses   int `json:"whatif_losses"`
	WhatIfServices int `json:"whatif_services"`
	// Of a health check, beside its interval and the longest timeout: equal results in a row, and how
	// long it may fail before the instance is removed.
	CheckTimeoutMin    Duration `json:"check_timeout_min"`
	CheckThreshold     int      `json:"check_threshold"`
	CheckPathBytes     int      `json:"check_path_bytes"`
	CheckServiceBytes  int      `json:"check_service_bytes"`
	DeregisterAfterMin Duration `json:"deregister_after_min"`
	DeregisterAfterMax Duration `json:"deregister_after_max"`
	// WatchesPerClient is how many streams one address may have open at a node; 0 = as many as all.
	WatchesPerClient int `json:"watches_per_client,omitempty"`
	// HeaderBytes is how long a request's headers may be together.
	HeaderBytes int `json:"header_bytes,omitempty"`
}
