package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/child"
	"github.com/nearside/nearside/services/readyfile"
)

// Config of a demo run.
type Config struct {
	Binary    string        // of the children; default: this program
	Name      string        // how the user calls it, for the screen
	Dir       string        // data, logs and traces; "" = a temporary one, removed at the end
	Host      string        // loopback address that everything listens on; default 127.0.0.1
	BasePort  int           // of the first region; region i adds 100·i
	Rate      int           // calls per second of each region's shoppers
	Duration  time.Duration // 0 = until ctx ends
	Kills     []string      // REGION@TIME
	Restores  []string      // REGION@TIME
	ReadyFile string        // JSON with every address and pid, written when all is up
	Report    string        // JSON file with the final report
}

// failedCalls is exit code 4: a promise was broken.
type failedCalls struct{ n int64 }

func (e *failedCalls) Error() string {
	return fmt.Sprintf("%d safe-to-repeat calls from surviving regions failed", e.n)
}
func (e *failedCalls) ExitCode() int { return 4 }

// Run runs the demo until its duration is over or ctx ends; every process is gone when it
// returns. Its error carries exit code 4 when a safe-to-repeat call from a region that was
// never killed failed.
func Run(ctx context.Context, cfg Config, out io.Writer) error {
	steps, err := parseSchedule(cfg.Kills, cfg.Restores, cfg.Duration)
	if err != nil {
		return err
	}
	if cfg.Duration < 0 {
		return &usageError{fmt.Sprintf("--duration %s is negative", cfg.Duration), "use a time like 60s, or 0 for no end"}
	}
	for flag, file := range map[string]string{"--report": cfg.Report, "--ready-file": cfg.ReadyFile} {
		if err := writable(flag, file); err != nil {
			return err
		}
	}
	if cfg.Rate < 1 || cfg.Rate > 1000 {
		return &usageError{fmt.Sprintf("--rate %d is out of range", cfg.Rate), "use 1 to 1000 calls per second"}
	}
	if cfg.BasePort < 1024 || cfg.BasePort > 65000 {
		return &usageError{fmt.Sprintf("--base-port %d is out of range", cfg.BasePort), "use 1024 to 65000"}
	}
	if cfg.Binary == "" {
		if cfg.Binary, err = os.Executable(); err != nil {
			return err
		}
	}
	dir := cfg.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "nearside-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	} else if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	rep := newReport()
	nursery := child.NewNursery(cfg.Binary)
	defer nursery.Close()
	w, err := newWorld(dir, cfg.Host, cfg.BasePort, cfg.Rate, nursery, rep)
	if err != nil {
		return err
	}
	defer w.stopAll()
	begun := time.Now()
	if err := w.raiseAll(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	w.welcome(out, cfg.Name, dir, time.Since(begun))
	if err := w.writeReady(cfg.ReadyFile); err != nil {
		return err
	}
	if cfg.ReadyFile != "" {
		defer os.Remove(cfg.ReadyFile)
	}
	// From here on several goroutines write lines.
	say := &lines{out: out}
	if cfg.Duration == 0 {
		rep.onMove = func(m Move) {
			say.printf("%s  %s: payments moved from %s to %s\n", m.At.Format("15:04:05"), m.Caller, m.From, m.To)
		}
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var group sync.WaitGroup
	group.Go(func() {
		if err := control(running, w); err != nil {
			say.printf("note: demo kill and restore are off: %v\n", err)
		}
	})
	started := time.Now()
	err = w.play(running, cfg, steps, started, say)
	stop()
	group.Wait()
	took := time.Since(started)
	w.stopAll()
	s := rep.summary(took)
	s.print(out)
	if cfg.Report != "" {
		b, _ := json.MarshalIndent(s, "", "  ")
		if werr := renameio.WriteFile(cfg.Report, append(b, '\n'), 0o644); werr != nil {
			err = errors.Join(err, fmt.Errorf("report %s: %w", cfg.Report, werr))
		}
	}
	if err == nil && s.Surviving.SafeFailed > 0 {
		err = &failedCalls{s.Surviving.SafeFailed}
	}
	return err
}

// play runs the schedule. An unattended run prints a line a second.
func (w *world) play(ctx context.Context, cfg Config, steps []step, started time.Time, say *lines) error {
	var end <-chan time.Time
	if cfg.Duration > 0 {
		t := time.NewTimer(cfg.Duration)
		defer t.Stop()
		end = t.C
	}
	each := time.NewTicker(time.Second)
	defer each.Stop()
	if cfg.Duration > 0 {
		say.printf("%s\n", heading())
	}
	var restoring sync.WaitGroup
	defer restoring.Wait()
	failed := make(chan error, len(steps))
	for {
		var next <-chan time.Time
		if len(steps) > 0 {
			next = time.After(time.Until(started.Add(steps[0].at)))
		}
		select {
		case <-ctx.Done():
			if cfg.Duration > 0 {
				return ctx.Err() // cut short: not the run that was asked for
			}
			return nil
		case <-end:
			say.printf("%s\n", second(time.Since(started), w.report.line(), w.down))
			return nil
		case err := <-failed:
			return err
		case <-each.C:
			if cfg.Duration > 0 && time.Since(started) < cfg.Duration-time.Second/2 {
				say.printf("%s\n", second(time.Since(started), w.report.line(), w.down))
			}
		case <-next:
			s := steps[0]
			steps = steps[1:]
			say.printf("%4.0fs   >>> %s %s\n", time.Since(started).Seconds(), map[action]string{kill: "kill -9", restore: "restore"}[s.action], s.region)
			// A restore takes seconds: the lines go on meanwhile.
			restoring.Go(func() {
				var err error
				if s.action == kill {
					err = w.kill(s.region)
				} else {
					err = w.restore(ctx, s.region)
				}
				if err != nil && ctx.Err() == nil {
					failed <- fmt.Errorf("%s %s: %w", s.action, s.region, err)
				}
			})
		}
	}
}

// writable fails early when a file could not be written at the end.
func writable(flag, file string) error {
	if file == "" {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".probe-*")
	if err != nil {
		return &usageError{fmt.Sprintf("%s %s cannot be written: %v", flag, file, err), "give a file in a directory that exists and is yours"}
	}
	_ = f.Close()
	return os.Remove(f.Name())
}

func (w *world) down(r api.Region) bool {
	p := w.place(r)
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.up
}

// lines lets several goroutines write whole lines.
type lines struct {
	mu  sync.Mutex
	out io.Writer
}

func (l *lines) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.out, format, args...)
}

// readyDoc is the demo's ready file.
type readyDoc struct {
	PID     int                        `json:"pid"`
	Regions map[api.Region]readyRegion `json:"regions"`
}

type readyRegion struct {
	HTTP       string         `json:"http"`
	Federation string         `json:"federation"`
	PIDs       map[string]int `json:"pids"`
}

func (w *world) writeReady(path string) error {
	if path == "" {
		return nil
	}
	doc := readyDoc{PID: os.Getpid(), Regions: map[api.Region]readyRegion{}}
	for _, p := range w.places {
		r := readyRegion{HTTP: "http://" + p.http, Federation: "http://" + p.fed, PIDs: map[string]int{}}
		p.mu.Lock()
		for _, proc := range p.procs {
			r.PIDs[proc.Name()] = proc.PID()
		}
		p.mu.Unlock()
		doc.Regions[p.region] = r
	}
	return readyfile.Write(path, doc)
}
