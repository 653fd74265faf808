// Package zaplog lets etcd, which logs through zap, write to a slog.Logger.
//
// etcd says at "info" what an operator of a service registry does not need, so zap's info
// becomes slog's debug; warnings and errors keep their level. zap's debug, several lines
// per transaction, is dropped. Of equal warnings and errors within half a minute the first is
// logged, and at the end of it how many more there were; while they go on, ever more rarely.
package zaplog

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Demote reports whether a warning or an error is without meaning for an operator; it is
// then logged at debug. errText is the entry's "error" field, or empty.
// It may be called from many goroutines at once.
type Demote func(message, errText string) bool

// New returns a zap logger that writes to log; nil discards. demote may be nil. opts are
// applied last (hooks for fatal and panic entries).
func New(log *slog.Logger, demote Demote, opts ...zap.Option) *zap.Logger {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return zap.New(&core{log: log, demote: demote, repeats: &repeats{open: map[string]*burst{}}}, opts...)
}

type core struct {
	log     *slog.Logger
	demote  Demote
	repeats *repeats
}

func (c *core) Enabled(l zapcore.Level) bool {
	return l >= zapcore.InfoLevel && c.log.Enabled(context.Background(), level(l))
}

func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{log: slog.New(c.log.Handler().WithAttrs(attrs(fields))), demote: c.demote, repeats: c.repeats}
}

func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	l := level(e.Level)
	as := attrs(fields)
	// Panic and fatal entries end something: they are never without meaning.
	if c.demote != nil && l >= slog.LevelWarn && e.Level < zapcore.DPanicLevel && c.demote(e.Message, ErrorText(fields)) {
		l = slog.LevelDebug
	}
	write := func(more ...slog.Attr) {
		c.log.LogAttrs(context.Background(), l, e.Message, append(as, more...)...)
	}
	if l < slog.LevelWarn || e.Level >= zapcore.DPanicLevel {
		write()
		return nil
	}
	c.repeats.once(l.String()+e.Message, ErrorText(fields), write)
	return nil
}

// Sync tells how often what was left out had come; an etcd calls it last of all when it is closed.
func (c *core) Sync() error {
	c.repeats.flush()
	return nil
}

func level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

func attrs(fields []zapcore.Field) []slog.Attr {
	if len(fields) == 0 {
		return nil
	}
	out := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		enc := zapcore.NewMapObjectEncoder()
		f.AddTo(enc)
		for k, v := range enc.Fields {
			out = append(out, slog.Any(k, v))
		}
	}
	return out
}

// ErrorText returns the text of the first error among fields, or "".
func ErrorText(fields []zapcore.Field) string {
	for _, f := range fields {
		if f.Type != zapcore.ErrorType {
			continue
		}
		if err, ok := f.Interface.(error); ok {
			return err.Error()
		}
	}
	return ""
}
