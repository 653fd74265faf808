package events

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/nearside/nearside/sdk/api"
)

// Config configures a Log. Region and Node are required; every other zero is a default.
type Config struct {
	Dir    string // where the segments are; nobody else may use it. "" = memory only
	Region api.Region
	Node   string

	SegmentBytes int64         // 4 MiB
	TotalBytes   int64         // api.EventLogBytes
	MaxAge       time.Duration // api.EventLogAge
	SyncEvery    time.Duration // 200 ms: what a power cut may cost
	Queue        int           // events that wait to be written; 4,096
	Memory       int           // newest events kept in memory; 2,048

	Logger        *slog.Logger         // nil = silent
	MeterProvider metric.MeterProvider // nil = none
}

const (
	retryEvery = 10 * time.Second // a disk that failed
	// patience is how long events are kept from readers until they are on disk.
	patience  = 200 * time.Millisecond
	closeTime = 2 * time.Second
	batchMost = 512
	// readersMost read from disk at once; the others wait.
	readersMost = 4
	// segmentAge is how long one segment is written to, so that age can remove it.
	segmentAge = 24 * time.Hour
)

// Log is the event log of one node. Its methods are safe for concurrent use.
//
// Two goroutines do its work. The sequencer takes events from the queue, gives them ids and
// causes and shows them to readers; the disk, where there is one, writes what memory holds
// and it does not. The sequencer waits for the disk, but not for long.
type Log struct {
	cfg Config
	log *slog.Logger

	batch   int // events that are taken together at most
	queue   chan api.Event
	dropped atomic.Uint64 // since the last event that told it
	lost    atomic.Uint64 // in all
	flushes chan chan struct{}
	readers chan struct{}
	disk    *disk         // nil = memory only
	wake    chan struct{} // capacity 1, to the disk: there is something to write
	moved   chan struct{} // capacity 1, from the disk: it wrote or failed

	closing, closed chan struct{} // of the sequencer
	once            sync.Once
	unobserve       func()

	mu       sync.RWMutex
	ring     ring
	last     uint64        // newest id that readers see; in memory and on disk there may be later ones
	changed  chan struct{} // closed when last rises
	segments []segment     // oldest first
	written  uint64        // newest id in a segment, or before all of this run's
	durable  bool          // the disk takes events

	// The sequencer's own.
	chain *chain
	stuck bool // the disk did not keep up: it is not waited for until it does
}

// Open opens the log of cfg and starts its writer. A directory that cannot be used is no
// error: the log then works in memory, says so, and tries the directory again later.
func Open(cfg Config) (*Log, error) {
	if err := api.CheckRegion(string(cfg.Region)); err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	if cfg.Node == "" {
		return nil, errors.New("event log: the node has no name")
	}
	cfg.SegmentBytes = orElse(cfg.SegmentBytes, 4<<20)
	cfg.TotalBytes = orElse(cfg.TotalBytes, api.EventLogBytes)
	cfg.MaxAge = orElse(cfg.MaxAge, api.EventLogAge)
	cfg.SyncEvery = orElse(cfg.SyncEvery, 200*time.Millisecond)
	cfg.Queue = orElse(cfg.Queue, 4_096)
	cfg.Memory = orElse(cfg.Memory, 2_048)
	if cfg.SegmentBytes < 2*maxPayload || cfg.TotalBytes < 2*cfg.SegmentBytes {
		return nil, fmt.Errorf("event log: segments of %d bytes within %d are too small", cfg.SegmentBytes, cfg.TotalBytes)
	}
	l := &Log{
		cfg: cfg, log: cfg.Logger, batch: max(1, min(batchMost, cfg.Memory/2)), queue: make(chan api.Event, cfg.Queue), flushes: make(chan chan struct{}),
		readers: make(chan struct{}, readersMost), wake: make(chan struct{}, 1), moved: make(chan struct{}, 1),
		closing: make(chan struct{}), closed: make(chan struct{}), ring: ring{size: cfg.Memory},
		changed: make(chan struct{}), chain: newChain(),
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if l.unobserve, err = l.observe(); err != nil {
		return nil, err
	}
	if cfg.Dir != "" {
		l.disk = newDisk(l)
		l.disk.open()
	}
	if !l.durable {
		// Above every id that the directory may hold, and above those of earlier runs.
		l.last = uint64(time.Now().Unix()) << 12
		l.written = l.last
	}
	if l.disk != nil {
		go l.disk.run()
	}
	go l.sequence()
	return l, nil
}

func orElse[T int | int64 | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// Record hands an event to the log and returns at once. ID, Region and Node are filled in;
// Time is now unless it is set; a Cause.Ref of 0 is filled in where an earlier event is known
// to be the reason. When the queue is full the event is dropped and counted.
func (l *Log) Record(e api.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	select {
	case l.queue <- e:
	default:
		l.dropped.Add(1)
		l.lost.Add(1)
	}
}

// Sync returns once everything recorded before the call can be read and, unless the disk
// fails, is on disk.
func (l *Log) Sync() {
	ack := make(chan struct{})
	select {
	case l.flushes <- ack:
		<-ack
	case <-l.closed:
	}
	if l.disk == nil {
		return
	}
	ack = make(chan struct{})
	select {
	case l.disk.syncs <- ack:
		<-ack
	case <-l.disk.closed:
	}
}

// Close writes what is queued and ends the log. Reads go on from what there is; events that
// are recorded later are lost. A disk that hangs is not waited for longer than two seconds,
// and then told as an error.
func (l *Log) Close() error {
	l.once.Do(func() { close(l.closing) })
	<-l.closed
	if l.disk == nil {
		return nil
	}
	patience := time.NewTimer(closeTime)
	defer patience.Stop()
	select {
	case <-l.disk.closed:
		return nil
	case <-patience.C:
		return fmt.Errorf("event log: the disk below %s does not answer; the newest events may be missing from it", l.cfg.Dir)
	}
}
