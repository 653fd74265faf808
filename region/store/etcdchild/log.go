package etcdchild

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxLastWords bounds what is kept of lines that are no log entries.
const maxLastWords = 8 << 10

// lastWords is what the Go runtime said of the child's end: a panic, no memory.
type lastWords struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lastWords) add(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text.Len()+len(line) < maxLastWords { // the first lines say what it was
		l.text.Write(line)
		l.text.WriteByte('\n')
	}
}

// cause returns the line that names the cause, and everything kept; both "" without any.
func (l *lastWords) cause() (line, all string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all = strings.TrimSpace(l.text.String())
	line, _, _ = strings.Cut(all, "\n")
	for s := range strings.Lines(all) {
		if strings.HasPrefix(s, "panic: ") || strings.HasPrefix(s, "fatal error: ") || strings.HasPrefix(s, "runtime: out of memory") {
			return strings.TrimSpace(s), all
		}
	}
	return line, all
}

// relog passes the child's log on to log, entry by entry at its level and time, until r ends.
func relog(r io.Reader, log *slog.Logger, words *lastWords) {
	lines(r, func(line []byte) {
		rec, ok := entry(line)
		if !ok {
			words.add(line)
			return
		}
		if h := log.Handler(); h.Enabled(context.Background(), rec.Level) {
			_ = h.Handle(context.Background(), rec)
		}
	})
}

// entry reads one line of slog's JSON form.
func entry(line []byte) (slog.Record, bool) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var fields map[string]any
	if err := d.Decode(&fields); err != nil {
		return slog.Record{}, false
	}
	message, ok := fields[slog.MessageKey].(string)
	if !ok {
		return slog.Record{}, false
	}
	var level slog.Level
	if s, ok := fields[slog.LevelKey].(string); !ok || level.UnmarshalText([]byte(s)) != nil {
		return slog.Record{}, false
	}
	at := time.Now()
	if s, ok := fields[slog.TimeKey].(string); ok {
		if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
			at = t
		}
	}
	rec := slog.NewRecord(at, level, message, 0)
	names := make([]string, 0, len(fields))
	for name := range fields {
		if name != slog.MessageKey && name != slog.LevelKey && name != slog.TimeKey {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		rec.AddAttrs(slog.Any(name, fields[name]))
	}
	return rec, true
}

// lines calls each for every line of r, cut to maxLine, until r ends. Whatever comes, it goes
// on reading: a child whose pipe is full stands still.
func lines(r io.Reader, each func([]byte)) {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			each(bytes.TrimRight(line, "\r\n"))
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}
