package demo

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// Command returns "nearside demo" with its verbs kill and restore.
func Command() *cobra.Command {
	cfg := Config{Name: "nearside"}
	if filepath.Base(os.Args[0]) != os.Args[0] {
		cfg.Name = os.Args[0] // started by a path: what the screen suggests must work as printed
	}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run three regions on this machine, and kill one",
		Long: `Run three regions (us-east, eu-west, ap-south) on this machine as real processes: a
registry node, a small shop and its shoppers in each. Nothing is kept.

With --duration the demo runs unattended: it prints one line a second (requests, failed,
p50 and p99, and where payments is served from, per calling region) and a report at the
end. --kill sends SIGKILL to every process of a region; --restore starts them again.

Exit code 4: a safe-to-repeat call from a region that was never killed failed.`,
		Example: `  nearside demo
  nearside demo --duration 60s --kill eu-west@15s --restore eu-west@35s
  nearside demo kill eu-west        # while a demo runs in another terminal`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return Run(cmd.Context(), cfg, cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.DurationVar(&cfg.Duration, "duration", 0, "end after this time; 0 = at Ctrl-C")
	f.StringArrayVar(&cfg.Kills, "kill", nil, "REGION@TIME: SIGKILL every process of the region (repeatable)")
	f.StringArrayVar(&cfg.Restores, "restore", nil, "REGION@TIME: start the region again (repeatable)")
	f.IntVar(&cfg.BasePort, "base-port", 7400, "first port; each region adds 100; a busy port is replaced by a free one")
	f.StringVar(&cfg.Host, "host", "127.0.0.1", "loopback address to listen on")
	f.IntVar(&cfg.Rate, "rate", 40, "calls per second of each region's shoppers")
	f.StringVar(&cfg.Dir, "data-dir", "", "keep data, logs and traces here (default: a temporary directory)")
	f.StringVar(&cfg.ReadyFile, "ready-file", "", "written when all regions are up: JSON with addresses and pids")
	f.StringVar(&cfg.Report, "report", "", "write the final report to this file as JSON")
	for _, a := range []action{kill, restore} {
		verb := &cobra.Command{
			Use:   string(a) + " REGION",
			Short: map[action]string{kill: "SIGKILL every process of a region of the running demo", restore: "Start a killed region of the running demo again"}[a],
			Args:  cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := command(cmd.Context(), a, args[0]); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s done\n", args[0], a)
				return nil
			},
		}
		cmd.AddCommand(verb)
	}
	return cmd
}
