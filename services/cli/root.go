package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	groupQuery = "query"
	groupWrite = "write"
	groupRun   = "run"
)

// newRoot builds the whole command tree.
func (a *app) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "nearside",
		Short: "Service discovery across regions: the nearest healthy instance, and why",
		Long: `Service discovery across regions: the nearest healthy instance, and why.

Exit codes: 0 ok · 1 error · 2 usage · 3 not found · 4 no healthy instance or condition
false · 5 unreachable · 6 not allowed · 7 conflict · 8 timed out · 9 only data older than
asked · 10 partial · 130 interrupted.`,
		Example: `  nearside services
  nearside resolve orders --zone a
  nearside explain orders --from eu-west/a
  nearside register web --port 8080 -- ./web --listen :8080`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	a.flags.add(root.PersistentFlags())
	root.AddGroup(
		&cobra.Group{ID: groupQuery, Title: "Ask a region:"},
		&cobra.Group{ID: groupWrite, Title: "Change a region:"},
		&cobra.Group{ID: groupRun, Title: "Run:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupQuery, a.servicesCommand(), a.instancesCommand(), a.resolveCommand(), a.explainCommand(), a.whatIfCommand(),
		a.watchCommand(), a.regionsCommand(), a.federationCommand(), a.eventsCommand(), a.checkCommand())
	add(groupWrite, a.registerCommand(), a.deregisterCommand(), a.drainCommand(), a.statusCommand(), a.snapshotCommand(), a.kvCommand(), a.policyCommand(), a.regionCommand())
	for _, c := range a.siblings {
		a.addSibling(root, c)
	}
	root.AddCommand(a.versionCommand())
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	// cobra adds these two when it executes, which is too late for usageErrors.
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	usageErrors(root)
	return root
}

// addSibling adds a command of another package. The flags that every verb has mean nothing
// there, so they are kept out of its help and refused when given.
func (a *app) addSibling(root, c *cobra.Command) {
	c.GroupID = groupRun
	root.AddCommand(c)
	c.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .HasAvailableInheritedFlags}}", "{{if false}}", 1))
	each(c, func(c *cobra.Command) {
		run, runE := c.Run, c.RunE
		if run == nil && runE == nil {
			return
		}
		c.RunE = func(c *cobra.Command, args []string) error {
			var alien string
			c.InheritedFlags().VisitAll(func(f *pflag.Flag) {
				if f.Changed && root.PersistentFlags().Lookup(f.Name) == f {
					alien = f.Name
				}
			})
			switch {
			case alien != "":
				return usagef(c, "--%s means nothing to %s", alien, c.CommandPath())
			case runE != nil:
				return runE(c, args)
			}
			run(c, args)
			return nil
		}
	})
}

// usageErrors makes every complaint about flags and arguments, of every command below c, a
// usage error, and gives commands that only hold others an answer of their own.
func usageErrors(c *cobra.Command) {
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if errors.Is(err, pflag.ErrHelp) {
			return err
		}
		if words := c.Flags().Args(); isGroup(c) && len(words) > 0 {
			return unknownCommand(c, words[0])
		}
		return flagError(c, err)
	})
	each(c, func(c *cobra.Command) {
		if isGroup(c) {
			if c.Annotations == nil {
				c.Annotations = map[string]string{}
			}
			c.Annotations[annotationGroup] = "true"
			c.Args = cobra.ArbitraryArgs
			c.RunE = runGroup
			return
		}
		if check := c.Args; check != nil {
			c.Args = func(c *cobra.Command, args []string) error {
				err := check(c, args)
				if err == nil || errors.As(err, new(*cliError)) {
					return err
				}
				return usagef(c, "%s", err)
			}
		}
	})
}

// flagError says what is wrong with a flag in words of ours: the library's end in those of a
// parser.
func flagError(c *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	if errors.As(err, &value) {
		f := value.GetFlag()
		want := map[string]string{
			"int": "a whole number", "uint64": "a whole number of 0 or more", "duration": "a time such as 30s or 5m", "bool": "true or false", "float64": "a number",
		}[f.Value.Type()]
		if want != "" {
			return usagef(c, "--%s %q is not %s", f.Name, value.GetValue(), want)
		}
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		e := usagef(c, "%s", err)
		var known []string
		c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		if near := similar(unknown.GetSpecifiedName(), known); len(near) > 0 && unknown.GetSpecifiedShortnames() == "" {
			for i := range near {
				near[i] = "--" + near[i]
			}
			e.remedy = "did you mean " + strings.Join(near, " or ") + "?\n" + e.remedy
		} else if unknown.GetSpecifiedShortnames() != "" {
			e.remedy = "an argument that begins with a dash comes after --\n" + e.remedy
		}
		return e
	}
	return usagef(c, "%s", err)
}

func isGroup(c *cobra.Command) bool {
	return c.HasSubCommands() && (!c.Runnable() || c.Annotations[annotationGroup] != "")
}

// annotationGroup marks a command that got runGroup, which makes it look runnable.
const annotationGroup = "group"

// runGroup answers for a command that only holds others.
func runGroup(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return unknownCommand(c, args[0])
	}
	if !c.HasParent() {
		return c.Help()
	}
	return usagef(c, "%s: say which: %s", c.CommandPath(), strings.Join(subcommands(c), ", "))
}

func subcommands(c *cobra.Command) []string {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return names
}

func unknownCommand(c *cobra.Command, word string) error {
	e := usagef(c, "unknown command %q for %s", word, c.CommandPath())
	if near := similar(word, subcommands(c)); len(near) > 0 {
		e.remedy = "did you mean " + quotedList(near) + "?\n" + e.remedy
	}
	return e
}

// usagef returns a usage error with a hint of one line instead of the whole help.
func usagef(c *cobra.Command, format string, args ...any) *cliError {
	return &cliError{
		exit: ExitUsage, detail: fmt.Sprintf(format, args...),
		remedy: fmt.Sprintf("usage: %s   (more: %s --help)", c.UseLine(), c.CommandPath()),
	}
}

// each calls f for c and every command below it.
func each(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		each(sub, f)
	}
}

// argCount accepts between least and most arguments; what names them for the message.
func argCount(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			// "SERVICE or ID": the first that is not there.
			if names := strings.Split(what, " or "); len(names) == least {
				what = names[len(args)]
			}
			return usagef(c, "%s is missing", what)
		case len(args) > most:
			return usagef(c, "unexpected argument %q", args[most])
		}
		return nil
	}
}
