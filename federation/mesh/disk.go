package mesh

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/renameio/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// saveInterval is the least time between two writes; a write that took long is followed
	// by a pause of saveShare times as long, so that a large replica keeps the disk 5 % busy.
	saveInterval = 2 * time.Second
	saveShare    = 20
	// touchInterval is how often the file's time is set to that of the last confirmation, and its mark written.
	touchInterval = 10 * time.Second
	// finishLimit bounds the wait for the last write: a disk that hangs must not keep the
	// process from ending.
	finishLimit = 3 * time.Second
	// maxFile and maxMemory bound what is read back.
	maxFile   = 256 << 20
	maxMemory = 1 << 30
)

// fileMagic begins a replica file; its last byte is the version of the container: magic,
// zstd of what replica.Saved wrote, and the xxhash of everything before it.
const fileMagic = "NSREPL\x00\x01"

var errBroken = errors.New("the file is damaged")

// disk keeps one replica's file. Writing happens in a goroutine of its own, because a disk
// may stall for seconds and the link must not. The fields below belong to the link's owner.
type disk struct {
	path string // "" = nothing is kept
	log  *slog.Logger

	dirty     bool
	confirmed time.Time // last confirmation by the origin; at first the file's time
	touched   time.Time // when the file's time was last set
	next      time.Time // of the next write

	jobs   chan job      // capacity 1
	ended  chan struct{} // run has returned
	idle   atomic.Bool
	took   atomic.Int64 // duration of the last write
	failed atomic.Bool
}

type job struct {
	saved *replica.Saved // nil = only set the file's time
	at    time.Time
	mark  *replica.Mark // nil = none is written
}

// kept is a replica as the disk needs it.
type kept interface {
	Save() *replica.Saved
	Mark() (replica.Mark, bool)
}

// markPath is where the version of the rows in the file is, when it moved on without them.
func (d *disk) markPath() string { return strings.TrimSuffix(d.path, ".replica") + ".mark" }

func markOf(r kept) *replica.Mark {
	if m, ok := r.Mark(); ok {
		return &m
	}
	return nil
}

func newDisk(dir string, region api.Region, log *slog.Logger) *disk {
	d := &disk{log: log, jobs: make(chan job, 1), ended: make(chan struct{})}
	d.idle.Store(true)
	if dir != "" {
		d.path = filepath.Join(dir, string(region)+".replica")
	}
	return d
}

// savedRegions lists the regions of the replicas in a directory.
func savedRegions(dir string) (out []api.Region) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.replica"))
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".replica"); dir != "" && api.ValidLabel(name) {
			out = append(out, api.Region(name))
		}
	}
	return out
}

// load returns the replica on disk, or an empty one. A file that cannot be used is renamed
// to .broken, where the next one replaces it.
func (d *disk) load(self, origin api.Region, now time.Time) *replica.Replica {
	empty := replica.New(self, origin, now)
	if d.path == "" {
		return empty
	}
	d.sweep()
	r, written, err := readFile(d.path, self, origin, now)
	switch {
	case err == nil:
		d.adopt(r)
		v := r.View()
		d.confirmed, d.touched = written, now
		d.log.Info("replica read from disk", "version", v.Version, "services", v.Rows, "age", v.Age(now).Round(time.Millisecond))
		return r
	case errors.Is(err, fs.ErrNotExist):
	default:
		aside := d.path + ".broken"
		d.log.Warn("replica on disk cannot be used; starting without it", "error", err, "moved_to", aside)
		if err := os.Rename(d.path, aside); err != nil {
			d.log.Warn("replica on disk cannot be moved aside", "error", err)
		}
	}
	return empty
}

// adopt moves a replica that was read to its mark. One that cannot be read is as good as none.
func (d *disk) adopt(r *replica.Replica) {
	var m replica.Mark
	if b, err := os.ReadFile(d.markPath()); err == nil && json.Unmarshal(b, &m) == nil {
		r.Adopt(m)
	}
}

// sweep removes what a killed process left of a write.
func (d *disk) sweep() {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(d.path), "."+filepath.Base(d.path)+"*"))
	for _, path := range left {
		_ = os.Remove(path) // it only takes up space
	}
}

// readFile returns the replica in a file and when the origin had confirmed it, as far as
// the file's time tells.
func readFile(path string, self, origin api.Region, now time.Time) (*replica.Replica, time.Time, error) {
	b, written, err := readAll(path)
	if err != nil {
		return nil, written, err
	}
	const frame = len(fileMagic) + 8
	if len(b) < frame || len(b) > maxFile || string(b[:len(fileMagic)]) != fileMagic {
		return nil, written, fmt.Errorf("%w, or of another version", errBroken)
	}
	body, sum := b[:len(b)-8], binary.BigEndian.Uint64(b[len(b)-8:])
	if xxhash.Sum64(body) != sum {
		return nil, written, fmt.Errorf("%w: its checksum does not match", errBroken)
	}
	z, err := zstd.NewReader(bytes.NewReader(body[len(fileMagic):]), zstd.WithDecoderMaxMemory(maxMemory), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, written, err
	}
	defer z.Close()
	r, err := replica.Restore(self, origin, z, now.Sub(written), now)
	return r, written, err
}

func readAll(path string) ([]byte, time.Time, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer func() { _ = f.Close() }() // only read from
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	return b, info.ModTime(), err
}

// tick hands over what is due, unless the writer is busy.
func (d *disk) tick(now time.Time, r kept) {
	if d.path == "" || !d.idle.Load() {
		return
	}
	switch {
	case (d.dirty || d.failed.Load()) && !now.Before(d.next):
		d.dirty = false
		d.touched = now
		d.submit(job{saved: r.Save(), at: d.confirmed})
		d.next = now.Add(max(saveInterval, saveShare*time.Duration(d.took.Load())))
	case d.confirmed.After(d.touched) && now.Sub(d.touched) >= touchInterval:
		d.touched = now
		d.submit(job{at: d.confirmed, mark: markOf(r)})
	}
}

func (d *disk) submit(j job) {
	d.idle.Store(false)
	d.jobs <- j // never blocks: the writer was idle
}

// finish writes a last time what is not on disk yet and ends run. It waits for it, but not
// for ever: the goroutine of a write that hangs in a stalled disk ends with the process.
func (d *disk) finish(r kept) {
	t := time.NewTimer(finishLimit)
	defer t.Stop()
	if d.path != "" {
		last := job{at: d.confirmed, mark: markOf(r)}
		if d.dirty || d.failed.Load() {
			last.saved = r.Save()
		}
		select {
		case d.jobs <- last:
		case <-t.C:
		}
	}
	close(d.jobs)
	select {
	case <-d.ended:
	case <-t.C:
		d.log.Warn("replica was not written before the end: the disk does not answer")
	}
}

// run writes until finish.
func (d *disk) run() {
	defer close(d.ended)
	for j := range d.jobs {
		if err := d.do(j); err != nil && !d.failed.Swap(true) {
			d.log.Warn("replica cannot be written; it is kept in memory and tried again", "error", err)
		} else if err == nil && j.saved != nil {
			d.failed.Store(false)
		}
		d.idle.Store(true)
	}
}

func (d *disk) do(j job) error {
	if j.saved != nil {
		began := time.Now()
		defer func() { d.took.Store(int64(time.Since(began))) }()
		if err := writeFile(d.path, j.saved); err != nil {
			return err
		}
	}
	if j.mark != nil {
		writeMark(d.markPath(), j.mark)
	}
	if !j.at.IsZero() {
		// A write must not make the file look newer than the origin's last word. A failure to
		// set the time costs a little truth in a displayed age.
		_ = os.Chtimes(d.path, time.Time{}, j.at)
	}
	return nil
}

// writeMark writes a mark in place of the last one. It is not synced: after a loss of power, and after a failure
// to write it, the file alone counts.
func writeMark(path string, m *replica.Mark) {
	b, err := json.Marshal(m)
	if err != nil {
		return
	}
	if next := path + ".new"; os.WriteFile(next, b, 0o600) == nil {
		_ = os.Rename(next, path)
	}
}

func writeFile(path string, s *replica.Saved) error {
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o600), renameio.IgnoreUmask())
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }() // nothing to do after a success
	sum := xxhash.New()
	out := io.MultiWriter(f, sum)
	if _, err := io.WriteString(out, fileMagic); err != nil {
		return err
	}
	z, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	if err := s.Encode(z); err != nil {
		_ = z.Close() // the first error is the one to tell
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	var tail [8]byte
	binary.BigEndian.PutUint64(tail[:], sum.Sum64())
	if _, err := f.Write(tail[:]); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}
