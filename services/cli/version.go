package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Version is the program's version. Release builds set it:
//
//	-ldflags "-X github.com/nearside/nearside/services/cli.Version=1.2.3"
var Version = "dev"

// versionInfo is what version prints.
type versionInfo struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Revision string `json:"revision,omitempty"` // of the source
	Time     string `json:"time,omitempty"`     // of that revision, RFC 3339
	Modified bool   `json:"modified,omitempty"` // built from a changed tree
	Tags     string `json:"tags,omitempty"`     // of the build; a release has none
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Example: `  nearside version
  nearside version -o json`,
		Args: argCount(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := a.applyEnv(c); err != nil {
				return err
			}
			out, err := a.newPrinter(c)
			if err != nil {
				return err
			}
			info := buildVersion()
			return out.print(view{data: info, names: []string{info.Version}, text: func(t *sheet) {
				t.line("nearside %s", info.Version)
				pairs := [][2]string{{"  go", info.Go + " " + info.Platform}}
				if info.Revision != "" {
					changed := ""
					if info.Modified {
						changed = " (modified)"
					}
					pairs = append(pairs, [2]string{"  source", info.Revision + changed})
				}
				if info.Time != "" {
					pairs = append(pairs, [2]string{"  time", info.Time})
				}
				if info.Tags != "" {
					pairs = append(pairs, [2]string{"  build tags", info.Tags + " (not a release)"})
				}
				t.pairs(pairs)
			}})
		},
	}
}

func buildVersion() versionInfo {
	info := versionInfo{Version: Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Revision = s.Value
		case "vcs.time":
			info.Time = s.Value
		case "vcs.modified":
			info.Modified = s.Value == "true"
		case "-tags":
			info.Tags = s.Value
		}
	}
	return info
}
