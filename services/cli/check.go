package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) checkCommand() *cobra.Command {
	group := &cobra.Command{
		Use:     "check",
		Short:   "Check a condition, for health checks of containers and monitors",
		Example: `  nearside check ready`,
	}
	group.AddCommand(&cobra.Command{
		Use:   "ready",
		Short: "Check that a node is ready to serve",
		Long: `Check that a node is ready to serve, and print one line that says so, or why not.

Exit 0 ready · 4 not ready · 5 no node answers · 8 it does not answer in time.`,
		Example: `  nearside check ready
  nearside check ready --addr http://10.0.0.1:7400 --timeout 2s
  HEALTHCHECK CMD ["/nearside", "check", "ready"]   # in a Dockerfile`,
		Args: argCount(0, 0, ""),
		RunE: a.verb(func(ctx context.Context, s *session, _ []string) error { return s.checkReady(ctx) }),
	})
	return group
}

// checkReady prints GET /readyz. A node that is not ready says so with 503 and the same body.
func (s *session) checkReady(ctx context.Context) error {
	got, body, err := s.client.exchange(ctx, http.MethodGet, api.PathReadyz, nil, nil)
	if err != nil {
		var ce *cliError
		if errors.As(err, &ce) && !s.out.machine() {
			if printErr := s.out.print(view{text: func(t *sheet) { t.line("CRITICAL: %s", ce.detail) }}); printErr != nil {
				return printErr
			}
			ce.silent = true
		}
		return err
	}
	var r api.Readiness
	if json.Unmarshal(body.data, &r) != nil || r.Checks == nil && r.Node == "" {
		e := asCLI(problem(got, body))
		if e.code == api.CodeUnavailable || e.code == api.CodeShuttingDown {
			e.exit = ExitFalse // it was reached, and says itself that it is not ready
		}
		return e
	}
	ready := r.Ready && got.status >= 200 && got.status < 300
	var failing, passing []string
	for _, c := range r.Checks {
		switch {
		case c.OK:
			passing = append(passing, c.Name)
		case c.Cause == "":
			failing = append(failing, c.Name)
		default:
			failing = append(failing, c.Name+": "+c.Cause)
		}
	}
	line := fmt.Sprintf("OK: %s/%s is ready", r.Region, r.Node)
	if len(passing) > 0 {
		line += " (" + strings.Join(passing, ", ") + ")"
	}
	if !ready {
		line = fmt.Sprintf("CRITICAL: %s/%s is not ready", r.Region, r.Node)
		if len(failing) > 0 {
			line += ": " + strings.Join(failing, "; ")
		}
	}
	if err := s.out.print(view{data: r, names: []string{r.Node}, text: func(t *sheet) { t.line("%s", line) }}); err != nil {
		return err
	}
	if !ready {
		return &cliError{exit: ExitFalse, detail: line, silent: true}
	}
	return nil
}
