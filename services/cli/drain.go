package cli

import (
	"context"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

// drainFlags are the flags of drain.
type drainFlags struct {
	note        string
	undo        bool
	incarnation uint64
}

func (a *app) drainCommand() *cobra.Command {
	var f drainFlags
	c := &cobra.Command{
		Use:   "drain SERVICE ID",
		Short: "Send no new calls to an instance, or take that back",
		Long: `Send no new calls to an instance while another one is left. The instance stays registered,
its heartbeats and readiness checks go on, and registering again does not end the drain:
--undo does, or a new start of the program.

--undo goes back to what was set before the drain, and leaves the rest to the checks. It
changes nothing at an instance that does not drain.`,
		Example: `  nearside drain orders orders-7 --note "kernel update"
  nearside drain orders orders-7 --undo
  nearside drain orders orders-7 --incarnation 3   # refused (exit 7) if a newer one runs`,
		Args:              argCount(2, 2, "SERVICE or ID"),
		ValidArgsFunction: a.completeInstances,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			return s.drain(ctx, args[0], args[1], f)
		}),
	}
	fs := c.Flags()
	fs.StringVar(&f.note, "note", "", "why, for whoever looks at the instance")
	fs.BoolVar(&f.undo, "undo", false, "take the drain back")
	fs.Uint64Var(&f.incarnation, "incarnation", 0, "only this incarnation or an older one; 0 = any")
	withoutEnv(fs, "note", "undo", "incarnation")
	return c
}

func (s *session) drain(ctx context.Context, service, id string, f drainFlags) error {
	if f.undo && s.cmd.Flags().Changed("note") {
		return usagef(s.cmd, "--note means nothing to --undo: the note goes with the drain")
	}
	key, was, err := s.target(ctx, service, id)
	if err != nil {
		return err
	}
	path, q := api.PathInstance(key.Service, key.ID)+"/drain", s.query()
	var now api.Instance
	switch {
	case f.undo:
		if f.incarnation > 0 {
			q.Set("incarnation", strconv.FormatUint(f.incarnation, 10))
		}
		_, err = s.client.do(ctx, http.MethodDelete, path, q, &now)
	default:
		err = s.client.sendJSON(ctx, http.MethodPut, path, q, api.Drain{Note: f.note, Incarnation: f.incarnation}, &now)
	}
	if err != nil {
		return s.didYouMeanInstance(ctx, err, service, id)
	}
	switch {
	case f.undo && was.Status != api.StatusDraining:
		return s.changed(now, was.Status, "it did not drain")
	case f.undo:
		return s.changed(now, was.Status, "")
	}
	return s.changed(now, was.Status, "undo: nearside drain "+s.nsFlag()+service+" "+id+" --undo")
}

// target returns the key of an instance that is named on the command line, and what it is
// like before it is changed.
func (s *session) target(ctx context.Context, service, id string) (api.InstanceKey, api.Instance, error) {
	key := api.InstanceKey{Namespace: s.ns, Service: api.ServiceName(service), ID: api.InstanceID(id)}
	var was api.Instance
	if err := checkService(service); err != nil {
		return key, was, err
	}
	if err := api.CheckInstanceID(id); err != nil {
		return key, was, err
	}
	_, err := s.client.get(ctx, api.PathInstance(key.Service, key.ID), s.query(), &was)
	if err != nil {
		err = s.didYouMeanInstance(ctx, err, service, id)
	}
	return key, was, err
}

// changed tells what became of an instance: in one line for people, as the instance itself
// otherwise.
func (s *session) changed(now api.Instance, was api.Status, more string) error {
	if s.out.format != formatTable {
		address := hostPort(now.Address, now.Port)
		return s.out.print(view{data: now, names: []string{string(now.ID)}, addresses: []string{address}, text: func(t *sheet) {
			t.table(narrow("INSTANCE", "WAS", "STATUS", "NOTE"), [][]cell{{
				text(now.Key().String()), status(was, false), status(now.Status, now.Overdue), text(now.StatusNote),
			}})
		}})
	}
	what := now.Key().String() + " is " + string(now.Status)
	if now.StatusNote != "" {
		what += " (" + now.StatusNote + ")"
	}
	if was != now.Status {
		what += ", was " + string(was)
	}
	if more != "" {
		what += "; " + more
	}
	s.note("%s", what)
	return nil
}

// nsFlag is the flag that a command to copy needs for the session's namespace.
func (s *session) nsFlag() string {
	if s.ns == api.DefaultNamespace {
		return ""
	}
	return "-n " + string(s.ns) + " "
}
