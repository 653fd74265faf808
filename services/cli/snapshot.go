package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	records "github.com/nearside/nearside/region/backup"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/backup"
	"github.com/nearside/nearside/services/node"
	"github.com/nearside/nearside/services/size"
)

// snapshotSilence is how long a node may take for the next bytes of a snapshot; snapshotGather how long
// for the first, unless --timeout says it: it reads all of its store before.
const (
	snapshotSilence = 30 * time.Second
	snapshotGather  = 30 * time.Second
)

func (a *app) snapshotCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "snapshot",
		Short: "Save a region's records to a file, look at it, restore it",
		Example: `  nearside snapshot save us-east.nearside
  nearside snapshot inspect us-east.nearside
  nearside snapshot restore us-east.nearside --data-dir /var/lib/nearside --region us-east`,
	}
	group.AddCommand(&cobra.Command{
		Use:   "save FILE",
		Short: "Save all records of a running node's region",
		Long: `Save all records of the region, of one moment, to FILE (- for standard output). The file
is checked as it arrives and replaces an older one only when it is whole. It holds
everything that instances told, so it is readable by its owner only.`,
		Example: `  nearside snapshot save us-east.nearside
  nearside snapshot save - | age -r … > us-east.nearside.age`,
		Args: argCount(1, 1, "FILE"),
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error { return s.saveSnapshot(ctx, args[0]) }),
	})
	group.AddCommand(&cobra.Command{
		Use:     "inspect FILE",
		Short:   "Check a saved file and say what it holds",
		Example: `  nearside snapshot inspect us-east.nearside -o json`,
		Args:    argCount(1, 1, "FILE"),
		RunE: a.verb(func(_ context.Context, s *session, args []string) error {
			info, err := backup.Inspect(args[0])
			if err != nil {
				return snapshotError(err)
			}
			return s.out.print(s.snapshotView(info, nil))
		}),
	})
	var dataDir, region string
	quota := size.Bytes(etcdnode.DefaultQuota)
	restore := &cobra.Command{
		Use:   "restore FILE",
		Short: "Fill an empty data directory from a saved file, while no node runs there",
		Long: `Fill an empty data directory from a saved file. Start a node on it afterwards: it is the
region as it was when the file was saved, in a new epoch, so that whoever saw later writes
starts anew. Every instance has a full TTL to send a heartbeat; those that registered
after the file was saved register again by themselves. Tokens are not in the file: without
--token-file the node makes a new one.`,
		Example: `  nearside snapshot restore us-east.nearside --data-dir /var/lib/nearside --region us-east`,
		Args:    argCount(1, 1, "FILE"),
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			if dataDir == "" {
				return usagef(s.cmd, "--data-dir is missing: the directory of the node to be")
			}
			if region != "" {
				if err := api.CheckRegion(region); err != nil {
					return err
				}
			}
			if err := node.CheckQuota(quota); err != nil {
				return err
			}
			res, err := backup.Restore(ctx, backup.Config{
				File: args[0], DataDir: dataDir, Region: api.Region(region), Quota: int64(quota),
				Logger: slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
			})
			if err != nil {
				return snapshotError(err)
			}
			if err := s.out.print(s.snapshotView(res.Info, &res)); err != nil {
				return err
			}
			s.note("restored; start it with: nearside server --region %s --data-dir %s", res.Region, res.DataDir)
			return nil
		}),
	}
	restore.Flags().StringVar(&dataDir, "data-dir", "", "data directory of the node to be: missing or empty (required)")
	restore.Flags().Var(&quota, "store-quota", node.QuotaUsage)
	restore.Flags().StringVar(&region, "region", "", "refuse a file of any other region")
	group.AddCommand(restore)
	return group
}

// saveSnapshot writes GET /v1/snapshot to a file.
func (s *session) saveSnapshot(ctx context.Context, name string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var silent atomic.Bool
	silence := time.AfterFunc(snapshotSilence, func() { silent.Store(true); cancel() })
	defer silence.Stop()
	info, err := s.receiveSnapshot(ctx, name, func(wait time.Duration) { silence.Reset(wait + snapshotSilence) })
	switch {
	case silent.Load():
		return &cliError{exit: ExitTimeout, detail: fmt.Sprintf("the snapshot stood still for %s", snapshotSilence), remedy: "try again, or another --addr", err: err}
	case errors.Is(err, records.ErrDamaged):
		return &cliError{exit: ExitUnreachable, detail: "the snapshot broke off: " + err.Error(), remedy: "try again: nothing was replaced", err: err}
	case err != nil:
		return err
	case name == "-":
		return nil // stdout is the file
	}
	if err := s.out.print(s.snapshotView(info, nil)); err != nil {
		return err
	}
	s.note("saved %s", name)
	return nil
}

func (s *session) receiveSnapshot(ctx context.Context, name string, progress func(wait time.Duration)) (records.Info, error) {
	body, err := s.client.snapshot(ctx, progress)
	if err != nil {
		return records.Info{}, err
	}
	defer body.Close()
	if name == "-" {
		return records.Inspect(progressReader{io.TeeReader(body, s.stdout), progress})
	}
	f, err := renameio.NewPendingFile(name, renameio.WithStaticPermissions(0o600))
	if err != nil {
		return records.Info{}, err
	}
	defer f.Cleanup()
	info, err := records.Inspect(progressReader{io.TeeReader(body, f), progress})
	if err != nil {
		return info, err
	}
	return info, f.CloseAtomicallyReplace()
}

type progressReader struct {
	r        io.Reader
	progress func(wait time.Duration)
}

func (p progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		p.progress(0)
	}
	return n, err
}

// snapshot asks for a snapshot at the first address that answers; asked is called before each, with
// how long it may take to begin.
func (c *client) snapshot(ctx context.Context, asked func(wait time.Duration)) (io.ReadCloser, error) {
	patience := c.timeout
	if patience == 0 {
		patience = snapshotGather
	}
	return c.first(ctx, func(addr string) (io.ReadCloser, error) {
		asked(patience)
		return c.snapshotFrom(ctx, addr, patience)
	})
}

func (c *client) snapshotFrom(ctx context.Context, addr string, patience time.Duration) (io.ReadCloser, error) {
	resp, err := c.open(ctx, addr, api.PathSnapshot, records.MediaType, patience)
	if err != nil {
		return nil, err
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && media == records.MediaType {
		return resp.Body, nil
	}
	return nil, c.refusal(addr, resp)
}

// snapshotView shows what a file holds, and what a restore made of it.
func (s *session) snapshotView(info records.Info, res *backup.Result) view {
	v := view{data: info, names: []string{string(info.Region)}}
	if res != nil {
		v.data = *res
	}
	age := "0s"
	if d := s.now().Sub(info.Created); d > 0 {
		age = shortDuration(d)
	}
	instances := strconv.Itoa(info.Instances)
	if info.Broken > 0 {
		instances += fmt.Sprintf(", and %d records that this version cannot read", info.Broken)
	}
	pairs := [][2]string{
		{"region", string(info.Region)},
		{"version", fmt.Sprintf("epoch %s, revision %d", info.Epoch, info.Revision)},
		{"saved", fmt.Sprintf("%s (%s ago) by %s", info.Created.Format(time.RFC3339), age, info.Node)},
		{"services", strconv.Itoa(info.Services)},
		{"instances", instances},
		{"records", strconv.Itoa(info.Records)},
		{"size", strconv.FormatInt(info.Bytes, 10) + " bytes, form " + strconv.Itoa(info.Format)},
		{"checksum", "ok"},
	}
	if res != nil {
		pairs = append(pairs, [2]string{"restored", fmt.Sprintf("to %s, epoch %s", res.DataDir, res.NewEpoch)})
	}
	v.text = func(t *sheet) { t.pairs(pairs) }
	return v
}

// snapshotError gives the errors of files and directories their exit codes.
func snapshotError(err error) error {
	switch {
	case errors.Is(err, backup.ErrNotEmpty), errors.Is(err, backup.ErrBusy), errors.Is(err, backup.ErrWrongRegion):
		return &cliError{exit: ExitConflict, detail: err.Error(), err: err}
	case errors.Is(err, records.ErrDamaged):
		return &cliError{exit: ExitError, detail: err.Error(), remedy: "take another file: nothing was changed", err: err}
	}
	return err
}
