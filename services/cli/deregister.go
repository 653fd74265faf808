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
	var all bool
	c := &cobra.Command{
		Use:   "deregister SERVICE ID | --all SERVICE",
		Short: "Remove an instance, or all of a service, from its region",
		Long: `Remove an instance from its region at once, or with --all every instance that the service
has now. A program that still runs and heartbeats through the SDK registers again; stop it first.

Other regions follow --all at once. A mass removal that nobody announced they hold back for a minute.`,
		Example: `  nearside deregister orders orders-7
  nearside deregister orders orders-7 --incarnation 3   # refused (exit 7) if a newer one runs
  nearside deregister --all orders                      # the service ends here`,
		Args: func(c *cobra.Command, args []string) error {
			if all {
				return argCount(1, 1, "SERVICE")(c, args)
			}
			return argCount(2, 2, "SERVICE or ID")(c, args)
		},
		ValidArgsFunction: a.completeInstances,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			switch {
			case all && incarnation > 0:
				return &cliError{exit: ExitUsage, detail: "--incarnation is of one instance, and --all removes every one", remedy: "leave one of them out"}
			case all:
				return s.removeService(ctx, args[0])
			}
			return s.deregister(ctx, args[0], args[1], incarnation)
		}),
	}
	c.Flags().BoolVar(&all, "all", false, "every instance of the service")
	c.Flags().Uint64Var(&incarnation, "incarnation", 0, "only this incarnation or an older one; 0 = any")
	withoutEnv(c.Flags(), "all", "incarnation")
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
		return s.didYouMeanInstance(ctx, err, service, id)
	}
	s.note("deregistered %s", api.InstanceKey{Namespace: s.ns, Service: api.ServiceName(service), ID: api.InstanceID(id)})
	return nil
}

func (s *session) removeService(ctx context.Context, service string) error {
	if err := checkService(service); err != nil {
		return err
	}
	var out api.ServiceRemoved
	if _, err := s.client.do(ctx, http.MethodDelete, api.PathService(api.ServiceName(service)), s.query(), &out); err != nil {
		return s.didYouMean(ctx, err, service, "")
	}
	s.note("removed %d instances of %s", out.Removed, api.ServiceKey{Namespace: out.Namespace, Service: out.Service})
	return nil
}
