package cli

import (
	"context"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) deregisterCommand() *cobra.Command {
	var incarnation uint64
	c := &cobra.Command{
		Use:   "deregister SERVICE ID",
		Short: "Remove an instance from its region",
		Long: `Remove an instance from its region at once. A program that still runs and heartbeats
through the SDK registers again; stop it first.`,
		Example: `  nearside deregister orders orders-7
  nearside deregister orders orders-7 --incarnation 3   # refused (exit 7) if a newer one runs`,
		Args: argCount(2, 2, "SERVICE or ID"),
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			return s.deregister(ctx, args[0], args[1], incarnation)
		}),
	}
	c.Flags().Uint64Var(&incarnation, "incarnation", 0, "only this incarnation or an older one; 0 = any")
	withoutEnv(c.Flags(), "incarnation")
	return c
}

func (s *session) deregister(ctx context.Context, service, id string, incarnation uint64) error {
	if err := checkService(service); err != nil {
		return err
	}
	if err := api.CheckInstanceID(id); err != nil {
		return err
	}
	q := s.query()
	if incarnation > 0 {
		q.Set("incarnation", strconv.FormatUint(incarnation, 10))
	}
	if _, err := s.client.do(ctx, http.MethodDelete, api.PathInstance(api.ServiceName(service), api.InstanceID(id)), q, nil); err != nil {
		return s.didYouMean(ctx, err, service, "")
	}
	s.note("deregistered %s/%s", service, id)
	return nil
}
