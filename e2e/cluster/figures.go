package cluster

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Figures are what a process of ours uses.
type Figures struct {
	Goroutines int
	FDs        int
	RSS        int64 // bytes of its own: the store's mapped file is not counted
}

// String is for reports.
func (f Figures) String() string {
	return fmt.Sprintf("%d goroutines, %d file descriptors, %.1f MiB", f.Goroutines, f.FDs, float64(f.RSS)/(1<<20))
}

// Figures reads what the node's process uses, from /proc and its /metrics.
func (n *Node) Figures() (Figures, error) {
	f, err := figuresOf(n.PID())
	if err != nil {
		return f, err
	}
	goroutines, err := n.Metric("go_goroutines")
	f.Goroutines = int(goroutines)
	return f, err
}

// StoreFigures is Figures of the child that keeps the node's records; its goroutines are not known.
func (n *Node) StoreFigures() (Figures, error) { return figuresOf(n.StorePID()) }

func figuresOf(pid int) (Figures, error) {
	var f Figures
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return f, err
	}
	f.FDs = len(fds)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return f, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return f, err
			}
			f.RSS = kib << 10
		}
	}
	return f, nil
}

// CPU returns the processor time that the node's process and the child that keeps its records
// have used.
func (n *Node) CPU() (time.Duration, error) {
	const tick = 10 * time.Millisecond // the kernel's unit, whatever its own clock
	var sum time.Duration
	for _, pid := range append(Children(n.PID()), n.PID()) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		// The name may hold anything; user and system time are the 12th and 13th after its bracket.
		f := strings.Fields(string(b)[strings.LastIndex(string(b), ")")+1:])
		for _, s := range f[11:13] {
			ticks, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(ticks) * tick
		}
	}
	return sum, nil
}

// Metric reads one metric of the node: the sum of all series whose name and labels begin
// with series.
func (n *Node) Metric(series string) (float64, error) {
	// A connection of its own, closed at once: asking must not change what is counted.
	req, err := http.NewRequest(http.MethodGet, n.URL()+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	req.Close = true
	resp, err := (&http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	sum, found := 0.0, false
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, series)
		if !ok || rest == "" || !strings.ContainsAny(rest[:1], "{ ,}") {
			continue
		}
		fields := strings.Fields(rest)
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("there is no metric %s", series)
	}
	return sum, nil
}

// Percentile returns the value that a share of all is at most, 0.99 = p99; 0 of none.
func Percentile(all []time.Duration, share float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[min(len(all)-1, int(share*float64(len(all))))]
}
