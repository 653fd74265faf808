package cli

import (
	"context"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

// listFlags filter a service's instances.
type listFlags struct {
	region, zone, status, tag, filter string
	limit                             int
}

func (f *listFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.region, "region", "", "instances of another region, as far as its summary tells")
	fs.StringVar(&f.zone, "zone", "", "only instances of this zone")
	fs.StringVar(&f.status, "status", "", "only instances of this status")
	fs.StringVar(&f.tag, "tag", "", "only instances with this tag")
	fs.StringVar(&f.filter, "filter", "", "only instances that this expression is true of, such as 'Zone == \"a\" and Metadata.team == pay'")
	fs.IntVar(&f.limit, "limit", 0, "at most this many; 0 = all")
	withoutEnv(fs, "region", "zone", "status", "tag", "filter", "limit")
}

func (a *app) servicesCommand() *cobra.Command {
	var f listFlags
	c := &cobra.Command{
		Use:   "services [NAME]",
		Short: "List services, or the instances of one",
		Long: `List the services of a namespace with their instances by status, or, with NAME, the
instances of one service in the node's region (or in another one, with --region).`,
		Example: `  nearside services
  nearside services orders -o wide
  nearside services orders --region us-east --status passing
  nearside services -o name`,
		Args:              argCount(0, 1, "the service"),
		ValidArgsFunction: a.completeServices,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			if len(args) == 1 {
				return s.instances(ctx, args[0], f)
			}
			for _, name := range []string{"region", "zone", "status", "tag", "filter", "limit"} {
				if s.cmd.Flags().Changed(name) {
					return usagef(s.cmd, "--%s needs the NAME of a service", name)
				}
			}
			return s.services(ctx)
		}),
	}
	f.add(c)
	return c
}

func (a *app) instancesCommand() *cobra.Command {
	var f listFlags
	c := &cobra.Command{
		Use:   "instances SERVICE",
		Short: "List the instances of a service",
		Example: `  nearside instances orders
  nearside instances orders --region us-east -o json`,
		Args:              argCount(1, 1, "the service"),
		ValidArgsFunction: a.completeServices,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			return s.instances(ctx, args[0], f)
		}),
	}
	f.add(c)
	return c
}

// services prints GET /v1/services.
func (s *session) services(ctx context.Context) error {
	list, got, err := s.allServices(ctx)
	if err != nil {
		return err
	}
	v := view{data: list, lines: []any{}}
	var rows [][]cell
	for _, c := range list.Services {
		v.lines = append(v.lines, c)
		v.names = append(v.names, string(c.Service))
		rows = append(rows, []cell{
			text(string(c.Service)), number(c.Instances), passingOf(c.Passing, c.Instances),
			number(c.Statuses[api.StatusWarning]), number(c.Statuses[api.StatusStarting]),
			number(c.Statuses[api.StatusDraining]), number(c.Statuses[api.StatusCritical]), text(joined(c.Regions)),
		})
	}
	v.text = func(t *sheet) {
		t.table(s.labelled(narrow("NAME", "INSTANCES", "PASSING", "WARNING", "STARTING", "DRAINING", "CRITICAL", "REGIONS"), rows))
	}
	if err := s.out.print(v); err != nil {
		return err
	}
	if len(list.Services) == 0 && !s.out.machine() {
		s.note("no services in namespace %s", s.ns)
	}
	return s.checkAge(got.age, "the list")
}

// allServices reads every page of GET /v1/services.
func (s *session) allServices(ctx context.Context) (all api.ServiceList, last answer, err error) {
	all.Services = []api.ServiceCount{}
	for q := s.query(); ; {
		var page api.ServiceList
		if last, err = s.client.get(ctx, api.PathServices, q, &page); err != nil {
			return all, last, err
		}
		all.Services = append(all.Services, page.Services...)
		if page.Cursor == "" || page.Cursor == q.Get("cursor") {
			return all, last, nil
		}
		q.Set("cursor", page.Cursor)
	}
}

// passingOf paints a count of passing instances out of total.
func passingOf(passing, total int) cell {
	c := number(passing)
	switch {
	case passing == total:
	case passing == 0:
		c.paint = red
	default:
		c.paint = yellow
	}
	return c
}

// instances prints every page of GET /v1/services/{service}/instances.
func (s *session) instances(ctx context.Context, service string, f listFlags) error {
	if err := checkService(service); err != nil {
		return err
	}
	if f.limit < 0 {
		return usagef(s.cmd, "--limit %d is negative", f.limit)
	}
	list, got, err := s.allInstances(ctx, api.ServiceName(service), f)
	if err != nil {
		return s.didYouMean(ctx, err, service, f.region)
	}
	v := view{data: list, lines: []any{}, addresses: []string{}}
	now := s.now()
	var rows [][]cell
	for _, i := range list.Instances {
		v.lines = append(v.lines, i)
		v.names = append(v.names, string(i.ID))
		address := hostPort(i.Address, i.Port)
		v.addresses = append(v.addresses, address)
		since := ""
		if !i.StatusSince.IsZero() {
			since = shortDuration(now.Sub(i.StatusSince))
		}
		rows = append(rows, []cell{
			text(string(i.ID)), text(address), text(string(i.Zone)), number(i.Weight), text(i.Version), text(since),
			text(strings.Join(i.Tags, ",")), text(heartbeat(i.TTL)), text(strconv.FormatUint(i.Incarnation, 10)),
			text(strconv.FormatUint(i.Revision, 10)), status(i.Status, i.Overdue), text(i.StatusNote),
		})
	}
	v.text = func(t *sheet) {
		columns := narrow("INSTANCE", "ADDRESS", "ZONE", "WEIGHT", "VERSION", "SINCE")
		columns = append(columns, wideOnly("TAGS", "TTL", "INCARNATION", "REVISION")...)
		columns = append(columns, narrow("STATUS")...)
		columns = append(columns, wideOnly("NOTE")...)
		t.table(s.labelled(columns, rows))
	}
	if err := s.out.print(v); err != nil {
		return err
	}
	if !s.out.machine() {
		switch {
		case len(list.Instances) == 0:
			s.note("%s has no such instance of %s; \"nearside resolve %s%s\" says where calls go", orHere(list.Region), service, s.nsFlag(), service)
		case !list.Complete && f.limit == 0:
			s.note("these are the instances that %s tells other regions about; it has more", orHere(list.Region))
		}
	}
	return s.checkAge(got.age, "what is known of "+orHere(list.Region))
}

// heartbeat is a TTL as shown: an instance that lives by its checks has none.
func heartbeat(ttl api.Duration) string {
	if ttl == 0 {
		return ""
	}
	return ttl.String()
}

// allInstances follows the cursors until all pages are there, or f.limit instances.
func (s *session) allInstances(ctx context.Context, service api.ServiceName, f listFlags) (api.InstanceList, answer, error) {
	q := s.query()
	for name, value := range map[string]string{"region": f.region, "zone": f.zone, "status": f.status, "tag": f.tag, "filter": f.filter} {
		if value != "" {
			q.Set(name, value)
		}
	}
	var all api.InstanceList
	for {
		if f.limit > 0 {
			q.Set("limit", strconv.Itoa(min(f.limit-len(all.Instances), api.MaxListLimit)))
		}
		var page api.InstanceList
		got, err := s.client.get(ctx, api.PathInstances(service), q, &page)
		if err != nil {
			return all, got, err
		}
		page.Instances = append(all.Instances, page.Instances...)
		before := len(all.Instances)
		all = page
		done := all.Cursor == "" || len(all.Instances) == before
		if done || f.limit > 0 && len(all.Instances) >= f.limit {
			return all, got, nil
		}
		q.Set("cursor", all.Cursor)
	}
}

func orHere(r api.Region) string {
	if r == "" {
		return "the region"
	}
	return string(r)
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

func joined(regions []api.Region) string {
	out := make([]string, len(regions))
	for i, r := range regions {
		out[i] = string(r)
	}
	return strings.Join(out, ",")
}
