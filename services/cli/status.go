package cli

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) statusCommand() *cobra.Command {
	var note string
	var undo bool
	var incarnation uint64
	c := &cobra.Command{
		Use:   "status SERVICE ID STATUS",
		Short: "Set the status of an instance by hand, or take that back",
		Long: `Set the status of an instance by hand: passing, warning, critical, starting or draining. Of
an instance with checks the worse of it and what the checks say counts. It holds until it is
set again, or the program registers again; heartbeats leave it as it is. To take an instance
out of traffic over registrations too, drain it.

--undo is the same as passing: with checks they have the word again. "nearside events --subject
SERVICE/ID" shows who set what.`,
		Example: `  nearside status orders orders-7 critical --note "wrong data on disk"
  nearside status orders orders-7 --undo
  nearside status orders orders-7 warning -o json`,
		Args:              argCount(2, 3, "SERVICE or ID"),
		ValidArgsFunction: a.completeInstances,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			change := api.StatusChange{Status: api.StatusPassing, Note: note, Incarnation: incarnation}
			switch {
			case len(args) == 2 && !undo:
				return usagef(s.cmd, "STATUS is missing: passing, warning, critical, starting or draining; or --undo")
			case len(args) == 3 && undo, undo && note != "":
				return usagef(s.cmd, "--undo goes back to passing: give it without a status and a note")
			case len(args) == 3:
				change.Status = api.Status(args[2])
			}
			return s.setStatus(ctx, args[0], args[1], change)
		}),
	}
	fs := c.Flags()
	fs.StringVar(&note, "note", "", "why, for whoever looks at the instance")
	fs.BoolVar(&undo, "undo", false, "passing again, or what the checks say")
	fs.Uint64Var(&incarnation, "incarnation", 0, "only this incarnation or an older one; 0 = any")
	withoutEnv(fs, "note", "undo", "incarnation")
	return c
}

func (s *session) setStatus(ctx context.Context, service, id string, change api.StatusChange) error {
	if err := change.Validate(); err != nil {
		return err
	}
	key, was, err := s.target(ctx, service, id)
	if err != nil {
		return err
	}
	var now api.Instance
	if err := s.client.sendJSON(ctx, http.MethodPut, api.PathInstance(key.Service, key.ID)+"/status", s.query(), change, &now); err != nil {
		return s.didYouMeanInstance(ctx, err, service, id)
	}
	more := ""
	switch {
	case change.Status == api.StatusPassing && now.Status != api.StatusPassing:
		more = "that is what its checks say"
	case change.Status != api.StatusPassing && len(now.Checks) == 0 && was.Status != change.Status && was.Status != api.StatusPassing && was.Status != api.StatusDraining:
		// Without checks what it was is what somebody set: --undo would go past it.
		more = "undo: nearside status " + s.nsFlag() + service + " " + id + " " + string(was.Status)
	case change.Status != api.StatusPassing:
		more = "undo: nearside status " + s.nsFlag() + service + " " + id + " --undo"
	}
	return s.changed(now, was.Status, more)
}
