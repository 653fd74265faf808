package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/backup"
	"github.com/nearside/nearside/services/node"
	"github.com/nearside/nearside/services/size"
)

func (a *app) recoverCommand() *cobra.Command {
	var cfg backup.RecoverConfig
	var region string
	quota := size.Bytes(etcdnode.DefaultQuota)
	c := &cobra.Command{
		Use:   "recover",
		Short: "Make a region of one node out of a survivor, when most of its nodes are lost for good",
		Long: `Make a region of one node out of the data of a surviving one, when most of the region's nodes
are lost for good: without a quorum nothing can be written, and no member can be removed.

Stop the survivor first; if several survive, take the one that led. The region goes on with
everything that this node has, in a new epoch: watchers and other regions start anew, and
every instance has a full TTL to send a heartbeat. The lost nodes must never run again with
their present data. The old store is kept beside the new one as
etcd.before-recover-TIME; delete it when all is well. About twice its size is needed
meanwhile.

Then start the node with its own entry as --cluster, and add others with "nearside region member add".`,
		Example: `  nearside region recover --region us-east --node us-east-1 --data-dir /var/lib/nearside
  nearside region recover --region us-east --node us-east-1 --data-dir /var/lib/nearside --confirm us-east`,
		Args: argCount(0, 0, ""),
		RunE: a.verb(func(ctx context.Context, s *session, _ []string) error {
			for _, f := range []struct{ flag, value string }{{"--region", region}, {"--node", cfg.Node}, {"--data-dir", cfg.DataDir}} {
				if f.value == "" {
					return usagef(s.cmd, "%s is missing", f.flag)
				}
			}
			if err := api.CheckRegion(region); err != nil {
				return err
			}
			if err := node.CheckQuota(quota); err != nil {
				return err
			}
			cfg.Region, cfg.Quota = api.Region(region), int64(quota)
			cfg.Logger = slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
			res, err := backup.Recover(ctx, cfg)
			switch {
			case errors.Is(err, backup.ErrNotConfirmed):
				return &cliError{exit: ExitUsage, detail: err.Error(), err: err}
			case errors.Is(err, backup.ErrNoData):
				return &cliError{exit: ExitNotFound, detail: err.Error(), err: err}
			case errors.Is(err, backup.ErrNothingLost), errors.Is(err, etcdnode.ErrLocked):
				return &cliError{exit: ExitConflict, detail: err.Error(), err: err}
			case err != nil:
				return err
			}
			if err := s.out.print(view{data: res, names: []string{string(res.Region)}, text: func(t *sheet) {
				t.pairs([][2]string{
					{"region", string(res.Region)},
					{"node", res.Node},
					{"lost", strings.Join(res.Lost, ", ")},
					{"records", strconv.Itoa(res.Records)},
					{"epoch", fmt.Sprintf("%s, after %s", res.NewEpoch, res.Epoch)},
					{"old store", res.Kept},
				})
			}}); err != nil {
				return err
			}
			s.note("recovered; start it with: nearside server --region %s --node %s --data-dir %s --cluster %s=HOST:PORT, then add others with: nearside region member add",
				res.Region, res.Node, res.DataDir, res.Node)
			return nil
		}),
	}
	c.Flags().StringVar(&region, "region", "", "the region (required)")
	c.Flags().StringVar(&cfg.Node, "node", "", "name of the node that survived (required)")
	c.Flags().StringVar(&cfg.DataDir, "data-dir", "", "its data directory; it must not run (required)")
	c.Flags().Var(&quota, "store-quota", node.QuotaUsage)
	c.Flags().StringVar(&cfg.Confirm, "confirm", "", "the region's name once more; without it nothing is done but told")
	withoutEnv(c.Flags(), "confirm")
	return c
}
