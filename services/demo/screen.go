package demo

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/shop"
)

// welcome is the first screen: at most 25 lines that say what runs, where, and what to try.
func (w *world) welcome(out io.Writer, name, dir string, took time.Duration) {
	first := "http://" + w.places[0].http
	fmt.Fprintf(out, "Nearside: three regions on this machine, ready in %.1f s.\n\n", took.Seconds())
	fmt.Fprintf(out, "  %-10s %-24s %s\n", "REGION", "API", "RUNS")
	for _, p := range w.places {
		runs := "registry, 2 × shop (5 services), shoppers"
		if !hasPayments(p.region) {
			runs = "registry, 2 × shop (4 services, no payments), shoppers"
		}
		fmt.Fprintf(out, "  %-10s %-24s %s\n", p.region, "http://"+p.http, runs)
	}
	for _, n := range w.notes {
		fmt.Fprintf(out, "  note: %s\n", n)
	}
	fmt.Fprintf(out, "\n  Not for production: no TLS, no tokens, and nothing is kept.\n  Logs, traces and data: %s\n\nTry, in another terminal:\n", dir)
	last := "http://" + w.places[len(w.places)-1].http
	tries := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, t := range [][2]string{
		{name + " resolve payments --addr " + last, "who serves payments to ap-south"},
		{name + " explain payments --addr " + last, "and why"},
		{name + " demo kill eu-west", "kill -9 every process of a region"},
		{name + " demo restore eu-west", "and bring it back"},
		{name + " regions --addr " + first, "all of them, as us-east sees them"},
		{"curl -s " + first + "/v1/resolve/orders", "without any tool of ours"},
	} {
		fmt.Fprintf(tries, "  %s\t%s\n", t[0], t[1])
	}
	_ = tries.Flush() // to out, like every line here
	fmt.Fprint(out, "\nCtrl-C ends everything.\n")
}

// cell is the width of one calling region in the lines of the unattended run.
const cell = 36

// heading explains the columns of second.
func heading() string {
	var b strings.Builder
	b.WriteString("      ")
	for _, r := range regions {
		fmt.Fprintf(&b, " │ %-*s", cell, "callers in "+string(r))
	}
	b.WriteString("\n time ")
	for range regions {
		fmt.Fprintf(&b, " │ %-*s", cell, fmt.Sprintf("%4s %6s %7s %7s  %s", "req", "failed", "p50", "p99", "payments"))
	}
	return strings.TrimRight(b.String(), " ")
}

// second formats one line of the unattended run.
func second(at time.Duration, ticks map[api.Region]*shop.Tick, down func(api.Region) bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%4.0fs ", at.Seconds())
	for _, r := range regions {
		text := "…"
		if t := ticks[r]; t != nil {
			text = fmt.Sprintf("%4d %6d %7s %7s  %s", t.Requests, t.Failed, ms(t.P50MS), ms(t.P99MS), sources(t.PaymentsFrom))
		} else if down(r) {
			text = "down"
		}
		fmt.Fprintf(&b, " │ %-*s", cell, text)
	}
	return strings.TrimRight(b.String(), " ")
}

func ms(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.1fms", v)
	}
	return fmt.Sprintf("%.0fms", v)
}

// sources lists where payments came from, most first.
func sources(from map[api.Region]int64) string {
	if len(from) == 0 {
		return "-"
	}
	names := slices.SortedFunc(maps.Keys(from), func(a, b api.Region) int {
		return cmp.Or(cmp.Compare(from[b], from[a]), cmp.Compare(a, b))
	})
	if len(names) == 1 {
		return string(names[0])
	}
	parts := make([]string, len(names))
	for i, n := range names {
		parts[i] = fmt.Sprintf("%s(%d)", n, from[n])
	}
	return strings.Join(parts, " ")
}

// print writes the final report.
func (s Summary) print(out io.Writer) {
	fmt.Fprintf(out, "\nReport after %s\n", s.Duration.D().Round(100*time.Millisecond))
	row := func(name, format string, args ...any) {
		fmt.Fprintf(out, "  %-30s %s\n", name, fmt.Sprintf(format, args...))
	}
	row("requests", "%d", s.All.Requests)
	row("failed", "%d", s.All.Failed)
	row("failed safe-to-repeat calls", "%d of %d; from surviving regions %d of %d", s.All.SafeFailed, s.All.Safe, s.Surviving.SafeFailed, s.Surviving.Safe)
	if s.Surviving.Requests == 0 {
		row("longest gap", "no region was spared in this run")
	} else {
		row("longest gap", "%s between successful calls of a surviving region", short(s.Surviving.LongestGap))
	}
	for _, f := range s.Faults {
		if len(f.FailOver) == 0 {
			row("time to fail over", "none needed: no other region was served payments from %s", f.Region)
			continue
		}
		for _, c := range slices.Sorted(maps.Keys(f.FailOver)) {
			row("time to fail over", "%s (%s lost %s)", moved(f.FailOver[c]), c, f.Region)
			if f.Restored != nil {
				row("time to fail back", "%s (%s to %s, counted from the start of its processes)", moved(f.FailBack[c]), c, f.Region)
			}
		}
	}
	for _, e := range s.All.Errors {
		row("error seen", "%s", e)
	}
}

func moved(d api.Duration) string {
	if d == 0 {
		return "did not happen"
	}
	return short(d)
}

func short(d api.Duration) string { return fmt.Sprintf("%.2f s", d.D().Seconds()) }
