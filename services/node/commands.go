package node

import (
	"cmp"
	"os"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/region/store/etcdchild"
)

// Commands returns the verbs that run a node: server and dev, and the hidden one of the
// process that they keep their records in. version is the program's, for the ready file and the event log.
func Commands(version string) []*cobra.Command {
	return []*cobra.Command{serverCommand(version), devCommand(version), memberCommand()}
}

func memberCommand() *cobra.Command {
	return &cobra.Command{
		Use:    etcdchild.Verb,
		Short:  "Keep a node's records; nearside server starts it and tells it what to do",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return etcdchild.Main(cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
}

func serverCommand(version string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run a node of a region's registry",
		Long: `Run a node of a region's registry: the API, the store (etcd, embedded) and the link to
other regions. The store is a second process of this program, which this one starts, watches
and ends; when it dies, everything is answered from memory until it is back.

Every setting is a flag, an environment variable NEARSIDE_<FLAG>, or a key of the YAML
file given with --config; a flag wins over the environment, which wins over the file.

With --roles federation it is no node, but the region's link to other regions as a process of
its own: it follows the nodes at --region-url, and nodes with --roles region learn of other
regions from it by --federation-url.

Without --dev the API asks for the token in DATA-DIR/token (made at first start), and
nothing listens beyond this machine without TLS.

SIGTERM and Ctrl-C end it in order, a second one at once. SIGHUP does nothing: certificates that are
replaced are read anew by themselves, other settings need a restart.`,
		Example: `  nearside server --dev --region us-east
  nearside server --dev --region us-east --http-addr 127.0.0.1:7400 --federation-addr 127.0.0.1:7402 \
      --peer eu-west=http://127.0.0.1:7502 --data-dir ./us-east
  nearside server --config /etc/nearside/nearside.yaml
  nearside server --dev --region us-east --roles federation --region-url http://127.0.0.1:7400 \
      --http-addr 127.0.0.1:7410 --federation-addr 127.0.0.1:7402 --peer eu-west=http://127.0.0.1:7502`,
		Args: cobra.NoArgs,
	}
	s := newSettings(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.resolve(os.LookupEnv)
		if err != nil {
			return err
		}
		cfg.Version = version
		var stop func()
		cfg.hangups, stop = catchHangups()
		defer stop()
		return Run(cmd.Context(), cfg, cmd.ErrOrStderr())
	}
	return cmd
}

func devCommand(version string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run one region for development: nothing is kept",
		Long: `Run one region on this machine for development: no TLS, no tokens, and the records are
thrown away at the end, unless a directory for them is named (--data-dir, NEARSIDE_DATA_DIR, which
the container image sets, or data-dir in the file). The same as nearside server --dev --region dev with a
temporary data directory.`,
		Example: `  nearside dev
  nearside dev --region lab --http-addr 127.0.0.1:7450`,
		Args: cobra.NoArgs,
	}
	s := newSettings(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		made := ""
		defer func() {
			if made != "" {
				_ = os.RemoveAll(made)
			}
		}()
		cfg, err := s.resolveDev(os.LookupEnv, func() (string, error) {
			dir, err := os.MkdirTemp("", "nearside-dev-")
			if err != nil {
				return "", usage("name a directory for the records with --data-dir, or one for temporary files with TMPDIR", "no temporary directory: %v", err)
			}
			made = dir
			return dir, nil
		})
		if err != nil {
			return err
		}
		cfg.Version = version
		return Run(cmd.Context(), cfg, cmd.ErrOrStderr())
	}
	return cmd
}

// resolveDev is resolve for the verb dev, which is a flag in itself: nothing takes it back. Region and data
// directory are its own only when nobody names them.
func (s *settings) resolveDev(env func(string) (string, bool), temporary func() (string, error)) (Config, error) {
	if err := s.flags.Set("dev", "true"); err != nil {
		return Config{}, err
	}
	s.complete = func(c *Config) (err error) {
		c.Region = cmp.Or(c.Region, "dev")
		if c.DataDir == "" {
			c.DataDir, err = temporary()
		}
		return err
	}
	return s.resolve(env)
}
