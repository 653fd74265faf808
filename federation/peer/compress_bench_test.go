package peer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// bootstrapLines are the frames of a bootstrap of n services of three instances.
func bootstrapLines(n int) (lines [][]byte, size int) {
	f := replica.Frame{Kind: replica.SnapshotChunk, Epoch: api.Epoch{Generation: 1, Nonce: 7}}
	for i := range n {
		k := api.ServiceKey{Namespace: "default", Service: api.ServiceName(fmt.Sprintf("service-%06d", i))}
		list := make([]*api.Instance, 3)
		for j := range list {
			h := uint32(i*3+j) * 2654435761
			list[j] = &api.Instance{
				Namespace: k.Namespace, Service: k.Service, ID: api.InstanceID(fmt.Sprintf("%s-%08x", k.Service, h)), Region: "eu-west",
				Zone: api.Zone([]string{"a", "b"}[j%2]), Address: fmt.Sprintf("10.%d.%d.%d", h>>16&255, h>>8&255, h&255), Port: 8080,
				Weight: 100, Version: "1.4.2", Status: api.StatusPassing,
			}
		}
		body, _ := summary.Encode(summary.Build(k, list, 1, "us-east"))
		if f.Rows = append(f.Rows, replica.Row{Revision: uint64(i), Body: body}); len(f.Rows) == replica.ChunkRows || i == n-1 {
			line, _ := json.Marshal(f)
			lines, size, f.Rows = append(lines, append(line, '\n')), size+len(line)+1, nil
		}
	}
	return lines, size
}

// BenchmarkCompression tells what the compression of a bootstrap of 10,000 services costs and saves, at
// the level that streams use and at the next one. MB/s are of plain frames.
func BenchmarkCompression(b *testing.B) {
	lines, size := bootstrapLines(10_000)
	for name, level := range map[string]zstd.EncoderLevel{"fastest": zstd.SpeedFastest, "default": zstd.SpeedDefault} {
		var out bytes.Buffer
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(window), zstd.WithEncoderCRC(false))
		if err != nil {
			b.Fatal(err)
		}
		b.Run("write/"+name, func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				out.Reset()
				enc.Reset(&out)
				s := squeezer{enc}
				for _, l := range lines {
					if err := s.write(l); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(out.Len())/10_000, "B/row")
			b.ReportMetric(float64(size)/float64(out.Len()), "ratio")
		})
		b.Run("read/"+name, func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				s := &Stream{alive: time.AfterFunc(time.Hour, func() {})}
				u, err := newUnsqueezed(&watched{stream: s, in: bytes.NewReader(out.Bytes())})
				if err != nil {
					b.Fatal(err)
				}
				if n, _ := io.Copy(io.Discard, u); n != int64(size) {
					b.Fatal(n)
				}
				u.Close()
				s.alive.Stop()
			}
		})
	}
}
