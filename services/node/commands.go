package node

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
)

// Commands returns the verbs that run a node: server and dev.
func Commands() []*cobra.Command { return []*cobra.Command{serverCommand(), devCommand()} }

func serverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run a node of a region's registry",
		Long: `Run a node of a region's registry: the API, the store (etcd, embedded) and the link to
other regions, in one process.

Every setting is a flag, an environment variable NEARSIDE_<FLAG>, or a key of the YAML
file given with --config; a flag wins over the environment, which wins over the file.

Without --dev the API asks for the token in DATA-DIR/token (made at first start), and
nothing listens beyond this machine without TLS.`,
		Example: `  nearside server --dev --region us-east
  nearside server --dev --region us-east --http-addr 127.0.0.1:7400 --federation-addr 127.0.0.1:7402 \
      --peer eu-west=http://127.0.0.1:7502 --data-dir ./us-east
  nearside server --config /etc/nearside/nearside.yaml`,
		Args: cobra.NoArgs,
	}
	s := newSettings(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.resolve(os.LookupEnv)
		if err != nil {
			return err
		}
		err = Run(cmd.Context(), cfg, cmd.ErrOrStderr())
		if errors.Is(err, ErrRestart) && cmd.Context().Err() == nil {
			return errors.Join(err, restart())
		}
		return err
	}
	return cmd
}

func devCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run one region for development: nothing is kept",
		Long: `Run one region on this machine for development: no TLS, no tokens, and the records are
thrown away at the end. The same as nearside server --dev with a temporary data directory.`,
		Example: `  nearside dev
  nearside dev --region lab --http-addr 127.0.0.1:7450`,
		Args: cobra.NoArgs,
	}
	s := newSettings(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := os.MkdirTemp("", "nearside-dev-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		s.cfg.Dev = true
		cfg, err := s.resolve(func(name string) (string, bool) {
			v, ok := os.LookupEnv(name)
			switch {
			case ok:
			case name == EnvName("region"):
				return "dev", true
			case name == EnvName("data-dir"):
				return dir, true
			}
			return v, ok
		})
		if err != nil {
			return err
		}
		return Run(cmd.Context(), cfg, cmd.ErrOrStderr())
	}
	return cmd
}
