package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// newLogger returns a logger in the configured form that never waits for w; closeLog writes what is queued.
func newLogger(cfg Config, w io.Writer) (log *slog.Logger, closeLog func(), err error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(strings.ToUpper(cfg.LogLevel))); err != nil {
		return nil, nil, usage("use debug, info, warn or error", "--log-level: %q is not known", cfg.LogLevel)
	}
	to := func(w io.Writer) *slog.Logger {
		o := &slog.HandlerOptions{Level: level}
		if cfg.LogFormat == "json" {
			return slog.New(slog.NewJSONHandler(w, o))
		}
		return slog.New(slog.NewTextHandler(w, o))
	}
	sink := newLogSink(w, to(w).With("region", string(cfg.Region), "node", cfg.Node))
	return to(sink).With("region", string(cfg.Region), "node", cfg.Node), sink.Close, nil
}

// telemetry is the otel SDK of this process: metrics, read at /metrics.
type telemetry struct {
	provider *sdkmetric.MeterProvider
	handler  http.Handler
}

func newTelemetry() (*telemetry, error) {
	own := prometheus.NewRegistry()
	own.MustRegister(collectors.NewBuildInfoCollector())
	exporter, err := otelprom.New(otelprom.WithRegisterer(own), otelprom.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return &telemetry{
		provider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)),
		// etcd registers its own metrics, and Go's, with Prometheus' default registry.
		handler: promhttp.HandlerFor(prometheus.Gatherers{own, prometheus.DefaultGatherer},
			promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}),
	}, nil
}

func (t *telemetry) Close(ctx context.Context) error { return t.provider.Shutdown(ctx) }
