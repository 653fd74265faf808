package events

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

const (
	suffix = ".events"
	// inUse is a file that is there while the log is open: finding it says that the log was
	// not closed, and events that readers saw may not have reached the disk.
	inUse = "in-use"
	// idsLost is how many ids are not given again then.
	idsLost = 1_000_000
)

var errNotOurs = errors.New("not a segment of an event log")

// disk owns the files. All but its channels belongs to the goroutine in run.
type disk struct {
	l               *Log
	syncs           chan chan struct{}
	closing, closed chan struct{}

	enc      *encoder
	looked   bool     // the directory was read
	file     *os.File // the active segment, the log's last one; nil = none is open
	number   uint64   // of the newest segment
	synced   uint64   // newest id that fsync confirmed
	unsynced bool     // something was written since
	failed   bool     // and said so
	retryAt  time.Time
	buf      []byte

	// beforeWrite, when set by a test, runs before each write to a file.
	beforeWrite func()
}

func newDisk(l *Log) *disk {
	return &disk{
		l: l, syncs: make(chan chan struct{}), closing: make(chan struct{}), closed: make(chan struct{}), enc: newEncoder(),
	}
}

// run writes what memory holds and the disk does not, until the log closes.
func (d *disk) run() {
	defer close(d.closed)
	house := time.NewTicker(retryEvery)
	defer house.Stop()
	syncs := time.NewTimer(d.l.cfg.SyncEvery)
	defer syncs.Stop()
	armed := true
	for {
		select {
		case <-d.l.wake:
			d.write()
		case <-syncs.C:
			armed = false
			d.sync()
		case <-house.C:
			d.write()
			if !d.failed {
				d.expire(0)
			}
		case ack := <-d.syncs:
			d.retryAt = time.Time{}
			d.write()
			d.sync()
			close(ack)
		case <-d.closing:
			d.retryAt = time.Time{}
			d.write()
			d.close()
			return
		}
		if d.unsynced && !armed {
			syncs.Reset(d.l.cfg.SyncEvery)
			armed = true
		}
	}
}

// open reads the directory before anything runs. When that cannot be done the log works in
// memory until a later try.
func (d *disk) open() {
	segments, unclean, err := d.look()
	if err != nil {
		d.fail(err)
		return
	}
	l := d.l
	d.looked = true
	last := newest(segments)
	if unclean && last > 0 {
		// Events that were read may not have reached the disk. Nobody who saw their ids may
		// take other events for them.
		last += idsLost
	}
	l.segments, l.durable, l.last, l.written, d.synced = segments, true, last, last, last
	d.expire(0)
	d.warm()
}

// look makes the directory, reads its segments and cuts off the torn tail of the last one. unclean tells that
// the log was not closed in good order before.
func (d *disk) look() (segments []segment, unclean bool, err error) {
	l := d.l
	if err := os.MkdirAll(l.cfg.Dir, 0o700); err != nil {
		return nil, false, err
	}
	entries, err := os.ReadDir(l.cfg.Dir)
	if err != nil {
		return nil, false, err
	}
	for _, e := range entries {
		name, ours := strings.CutSuffix(e.Name(), suffix)
		number, err := strconv.ParseUint(name, 10, 63)
		if !ours || err != nil {
			continue
		}
		d.number = max(d.number, number)
		path := filepath.Join(l.cfg.Dir, e.Name())
		s, torn, damaged, err := openSegment(path, number, 2*l.cfg.SegmentBytes+maxPayload)
		switch {
		case errors.Is(err, errNotOurs):
			d.setAside(path, err)
			continue
		case err != nil:
			l.log.Warn("a segment of the event log cannot be read and is left out", "file", path, "cause", err)
			continue
		}
		if torn > 0 || damaged > 0 {
			// Torn by a kill, or by a power cut; anything else is a disk that is not sound.
			l.log.Warn("a segment of the event log has parts that cannot be read", "file", path,
				"bytes_at_the_end", torn, "damaged_events", damaged)
		}
		if s.last == 0 {
			if err := os.Remove(path); err != nil {
				return nil, false, err
			}
			continue
		}
		segments = append(segments, s)
	}
	slices.SortFunc(segments, func(a, b segment) int { return cmp.Compare(a.number, b.number) })
	if n := len(segments); n > 0 {
		// More is written behind the last one's sound part.
		if err := os.Truncate(segments[n-1].path, segments[n-1].size); err != nil {
			return nil, false, err
		}
	}
	mark := filepath.Join(l.cfg.Dir, inUse)
	_, err = os.Lstat(mark)
	unclean = err == nil
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return nil, false, err
	}
	return segments, unclean, nil
}

// setAside moves a file that is not ours out of the way; one that a kill left without its
// magic is just removed.
func (d *disk) setAside(path string, why error) {
	if st, err := os.Stat(path); err == nil && st.Size() < int64(len(magic)) {
		_ = os.Remove(path)
		return
	}
	d.l.log.Warn("a file in the event log's directory is set aside", "cause", why, "now", path+".broken")
	_ = os.Rename(path, path+".broken")
}

// warmBytes of the log are read at the start.
const warmBytes = 1 << 20

// warm fills memory with the newest events, so that causes are known across a restart.
func (d *disk) warm() {
	l := d.l
	start := len(l.segments)
	for need := int64(warmBytes); need > 0 && start > 0; {
		start--
		need -= l.segments[start].size
	}
	seen := uint64(0)
	for i := range l.segments[start:] {
		s := &l.segments[start+i]
		err := s.frames(int64(len(magic)), func(fr frame) bool {
			var e api.Event
			if fr.id > seen && json.Unmarshal(fr.payload, &e) == nil && e.ID == fr.id {
				seen = fr.id
				l.chain.remember(&e)
				l.ring.push(e)
			}
			return true
		})
		if err != nil {
			l.log.Warn("the event log's newest events cannot be read", "cause", err)
		}
	}
}

// write writes everything that memory holds and the disk does not.
func (d *disk) write() {
	l := d.l
	if d.failed {
		if time.Now().Before(d.retryAt) {
			return
		}
		d.retryAt = time.Now().Add(retryEvery)
	}
	if !d.looked {
		segments, _, err := d.look()
		if err != nil {
			return
		}
		d.looked, d.synced = true, l.written
		l.setSegments(segments) // their ids are below those of this run
		d.expire(0)
	}
	lost := uint64(0)
	for {
		l.mu.RLock()
		from := l.written
		events := l.ring.after(from, batchMost)
		l.mu.RUnlock()
		if len(events) == 0 {
			break
		}
		lost += events[0].ID - from - 1
		err := d.append(events)
		if err == nil && d.failed {
			err = d.fsync() // before it is believed
		}
		if err != nil {
			d.fail(err)
			return
		}
		poke(l.moved)
	}
	if d.failed {
		d.failed = false
		l.setDurable(true)
		l.log.Info("the event log is written to disk again", "dir", l.cfg.Dir)
	}
	if lost > 0 {
		l.Record(l.own(api.BecauseDisk, fmt.Sprintf("%d events are not on disk: it could not be written, and memory had no more room for them", lost)))
	}
}

// fail notes that the disk did not do something. What is not known to be on it is written
// again, to a new segment, when it works.
func (d *disk) fail(err error) {
	l := d.l
	if !d.failed {
		l.log.Warn("the event log cannot be written to disk; the newest events are kept in memory, and a restart would lose them",
			"dir", l.cfg.Dir, "cause", err, "retry_in", retryEvery.String())
	}
	d.failed, d.retryAt = true, time.Now().Add(retryEvery)
	if d.file != nil {
		// Its sound part stays readable, whatever was half written behind it.
		_ = d.file.Truncate(l.segments[len(l.segments)-1].size)
		_ = d.file.Close()
		d.file = nil
	}
	d.unsynced = false
	l.mu.Lock()
	l.durable = false
	if d.looked {
		l.written = min(l.written, d.synced)
	}
	l.mu.Unlock()
	poke(l.moved)
}

// append encodes events and writes them, with one call of the kernel per segment.
func (d *disk) append(events []api.Event) error {
	if err := d.continueSegment(); err != nil {
		return err
	}
	var s segment
	if d.file != nil {
		s = d.l.segments[len(d.l.segments)-1] // only this goroutine changes them
	}
	d.buf = d.buf[:0]
	for i := range events {
		e := &events[i]
		payload, err := d.enc.encode(e)
		if err != nil || len(payload) > maxPayload {
			d.l.log.Error("an event cannot be stored", "id", e.ID, "kind", string(e.Kind), "cause", err)
			continue
		}
		length := int64(headLen + len(payload))
		tooOld := s.last != 0 && e.Time.Sub(time.UnixMilli(s.born)) > segmentAge
		if d.file == nil || s.last != 0 && s.size+length > d.l.cfg.SegmentBytes || tooOld {
			if err := d.flush(s); err != nil {
				return err
			}
			if s, err = d.rotate(); err != nil {
				return err
			}
		}
		at := e.Time.UnixMilli()
		d.buf = appendFrame(d.buf, frame{id: e.ID, at: at, payload: payload})
		s.add(s.size, s.size+length, e.ID, at)
	}
	if err := d.flush(s); err != nil {
		return err
	}
	d.l.setWritten(events[len(events)-1].ID)
	return nil
}

// continueSegment opens the last segment of an earlier run for more, if it has room. After
// a failure a new one is begun instead.
func (d *disk) continueSegment() error {
	list := d.l.segments
	n := len(list)
	if d.file != nil || d.failed || n == 0 || list[n-1].size > d.l.cfg.SegmentBytes-maxPayload {
		return nil
	}
	f, err := os.OpenFile(list[n-1].path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.Seek(list[n-1].size, io.SeekStart); err != nil {
		_ = f.Close()
		return err
	}
	d.file = f
	return nil
}

// flush writes the buffer, after which s describes the active segment.
func (d *disk) flush(s segment) error {
	if len(d.buf) == 0 {
		return nil
	}
	if d.beforeWrite != nil {
		d.beforeWrite()
	}
	_, err := d.file.Write(d.buf)
	d.buf = d.buf[:0]
	if err != nil {
		return err
	}
	d.unsynced = true
	list := slices.Clone(d.l.segments)
	list[len(list)-1] = s
	d.l.setSegments(list)
	return nil
}

func (d *disk) fsync() error {
	if d.file == nil || !d.unsynced {
		return nil
	}
	if err := d.file.Sync(); err != nil {
		return fmt.Errorf("fsync: %w", err)
	}
	d.unsynced = false
	d.synced = max(d.synced, d.l.segments[len(d.l.segments)-1].last)
	return nil
}

// sync makes what was written survive a power cut.
func (d *disk) sync() {
	if err := d.fsync(); err != nil {
		d.fail(err)
	}
}

// rotate seals the active segment and begins a new one, for which it makes room first.
func (d *disk) rotate() (segment, error) {
	if d.file != nil {
		if err := d.fsync(); err != nil {
			return segment{}, err
		}
		err := d.file.Close()
		d.file = nil
		if err != nil {
			return segment{}, err
		}
	}
	d.expire(d.l.cfg.SegmentBytes)
	d.number++
	path := filepath.Join(d.l.cfg.Dir, fmt.Sprintf("%012d%s", d.number, suffix))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return segment{}, err
	}
	if _, err := f.WriteString(magic); err != nil {
		_ = f.Close()
		_ = os.Remove(path)
		return segment{}, err
	}
	syncDir(d.l.cfg.Dir)
	s := segment{path: path, number: d.number, size: int64(len(magic))}
	d.file = f
	d.l.setSegments(append(slices.Clone(d.l.segments), s))
	return s, nil
}

// syncDir makes a new name survive a power cut. Where directories cannot be synced the
// name is as safe as the file system makes it.
func syncDir(dir string) {
	if f, err := os.Open(dir); err == nil {
		_ = f.Sync()
		_ = f.Close()
	}
}

// expire removes the oldest segments until room bytes fit, and those that are too old; the
// active one stays.
func (d *disk) expire(room int64) {
	list := d.l.segments
	most := len(list)
	if d.file != nil {
		most--
	}
	oldest := time.Now().Add(-d.l.cfg.MaxAge).UnixMilli()
	n := 0
	for total := size(list); n < most && (total+room > d.l.cfg.TotalBytes || list[n].newest < oldest); n++ {
		if err := os.Remove(list[n].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			d.l.log.Warn("an old segment of the event log cannot be removed", "cause", err)
			break
		}
		total -= list[n].size
	}
	if n > 0 {
		d.l.setSegments(slices.Clone(list[n:]))
	}
}

// close ends in good order, and leaves word of it if nothing is missing on disk.
func (d *disk) close() {
	d.sync()
	if d.file != nil {
		if err := d.file.Close(); err != nil && !d.failed {
			d.fail(err)
		}
		d.file = nil
	}
	if d.looked && !d.failed {
		_ = os.Remove(filepath.Join(d.l.cfg.Dir, inUse))
	}
}

// What the disk tells readers and the sequencer.

func (l *Log) setSegments(list []segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments = list
}

func (l *Log) setWritten(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written = max(l.written, id)
}

func (l *Log) setDurable(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.durable = yes
}

// size returns the bytes of segments.
func size(segments []segment) int64 {
	n := int64(0)
	for i := range segments {
		n += segments[i].size
	}
	return n
}

// newest returns the greatest id in segments.
func newest(segments []segment) uint64 {
	n := uint64(0)
	for i := range segments {
		n = max(n, segments[i].last)
	}
	return n
}
