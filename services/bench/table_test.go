package bench

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// outputPath names the file with the output of the packages' own benchmarks, some of which
// belong into the table.
const outputPath = "NEARSIDE_BENCH_OUTPUT"

// BenchmarkOthers takes the figures that packages measured themselves into the table.
func BenchmarkOthers(b *testing.B) {
	if b.N > 1 {
		return
	}
	b.ReportMetric(0, "ns/op")
	path := os.Getenv(outputPath)
	if path == "" {
		b.Skip("make bench gives their output")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range []struct {
		name, unit, what, goal string
		reached                func(v float64) bool
	}{
		{"BenchmarkPick/round_robin/100/pick", "ns/op", "Pick, warm SDK, 100 instances, 3 regions", "≤ 100 ns, 0 allocations", func(v float64) bool { return v <= 100 }},
		{"BenchmarkPick/round_robin/100/pick_and_done", "ns/op", "Pick with breaker and metrics", "≤ 400 ns", func(v float64) bool { return v <= 400 }},
		{"BenchmarkPick/by_hand/100", "ns/op", "the same by hand: a slice under a mutex", "(yardstick)", func(float64) bool { return true }},
		{"BenchmarkPicker/nearside/conns=100", "ns/op", "gRPC picker and its report, 100 connections", "≤ 400 ns, 0 allocations", func(v float64) bool { return v <= 400 }},
		{"BenchmarkDecide/instances=10", "ns/op", "route.Decide, 3 regions of 10 instances", "(no goal; what Pick and resolve spare)", func(float64) bool { return true }},
		{"BenchmarkDecide/instances=100", "ns/op", "route.Decide, 3 regions of 100 instances", "(no goal; what Pick and resolve spare)", func(float64) bool { return true }},
		{"BenchmarkDecide/instances=1000", "ns/op", "route.Decide, 3 regions of 1,000 instances", "(no goal)", func(float64) bool { return true }},
		{"BenchmarkDecide/instances=10,regions=20", "ns/op", "route.Decide, 20 regions of 10 instances", "(no goal)", func(float64) bool { return true }},
		{"BenchmarkDecide/instances=100,regions=20", "ns/op", "route.Decide, 20 regions of 100 instances", "(no goal)", func(float64) bool { return true }},
		{"BenchmarkDecide/instances=1000,regions=20", "ns/op", "route.Decide, 20 regions of 1,000 instances", "(no goal)", func(float64) bool { return true }},
		{"BenchmarkDecide/loads,regions=20", "ns/op", "route.Decide, 20 regions of 100 instances, spilling by load", "(no goal)", func(float64) bool { return true }},
		{"BenchmarkScale", "B/row", "federation: bootstrap, zstd, of 100,000 services x 20", "(the text: 34 B, without fail-over sets)", func(float64) bool { return true }},
		{"BenchmarkScale", "heapB/row", "federation: replicas of 19 origins in memory", "≤ 6 GiB for 1,900,000 rows", func(v float64) bool { return v*1_900_000 <= 6<<30 }},
		{"BenchmarkScale", "idleB/s", "federation: an idle link, zstd", "independent of instances; < 1 KB/s", func(v float64) bool { return v < 1000 }},
		{"BenchmarkScale", "healKiB", "federation: heal of a 1 % changed replica of 100,000 rows", "digest + 1.2 x the rows, raw: 1,070 KiB", func(v float64) bool { return v <= 1070 }},
		{"BenchmarkScale", "idleFullB/s", "the same with what 18 others are to it, and signed", "< 1 KB/s (the text)", func(v float64) bool { return v < 1000 }},
		{"BenchmarkChecks20k", "lag-p99-ms", "20,000 checks of 10 s on one node: late by, p99", "≤ 1 s", func(v float64) bool { return v <= 1000 }},
		{"BenchmarkRegister64Etcd", "ratio", "register through the registry, 64 clients, fsynced", "≥ 2 × 64 plain etcd Puts", func(v float64) bool { return v >= 2 }},
	} {
		values := valuesOf(string(text), f.name)
		v, err := strconv.ParseFloat(values[f.unit], 64)
		if err != nil {
			b.Errorf("%s did not tell its %s", f.name, f.unit)
			continue
		}
		beside := values["allocs/op"] + " allocations"
		switch {
		case f.name == "BenchmarkChecks20k":
			beside = values["checks/s"] + " checks/s; p50 " + values["lag-p50-ms"] + " ms, at most " + values["lag-max-ms"] + " ms"
		case f.name == "BenchmarkScale":
			beside = values["cpu-s"] + " s of one processor for a cold start"
		case strings.HasPrefix(f.name, "BenchmarkPicker/"):
			theirs := valuesOf(string(text), strings.Replace(f.name, "nearside", "round_robin", 1))
			beside += "; grpc-go's round robin " + theirs["ns/op"] + " ns"
		case f.unit == "ratio":
			beside = values["registrations/s"] + " registrations/s, " + values["puts/s"] + " Puts/s"
		}
		report(b, figure{what: f.what, got: values[f.unit] + " " + f.unit, yardstick: beside, goal: f.goal, reached: f.reached(v)})
	}
}

// valuesOf returns what the first line of a benchmark tells, by unit.
func valuesOf(text, name string) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 4 || strings.TrimRight(strings.TrimRight(words[0], "0123456789"), "-") != name {
			continue
		}
		for i := 2; i+1 < len(words); i += 2 {
			values[words[i+1]] = words[i]
		}
		break
	}
	return values
}
