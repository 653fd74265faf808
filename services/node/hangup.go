package node

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// catchHangups takes SIGHUP away from whoever had it: a server outlives the terminal it was started
// from, and a supervisor's wish to read settings anew. With nohup it was ignored before, and stays so
// (nil).
func catchHangups() (hangups <-chan os.Signal, stop func()) {
	if signal.Ignored(syscall.SIGHUP) {
		return nil, func() {}
	}
	signal.Reset(syscall.SIGHUP)
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

// tellHangups logs every SIGHUP until the returned function is called.
func tellHangups(hangups <-chan os.Signal, log *slog.Logger) (stop func()) {
	if hangups == nil {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-hangups:
				log.Info("SIGHUP: nothing to do; certificates are read anew by themselves, and other settings at a restart")
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}
