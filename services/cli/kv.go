package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) kvCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "kv",
		Short: "Read, write and follow a region's keys",
		Long: `Read, write and follow a region's keys: small configuration that belongs to a region.

A key is 1 to 512 of A-Z a-z 0-9 . _ : / -, a value at most 64 KiB of any bytes. Keys of
different namespaces (-n) have nothing to do with each other.`,
		Example: `  nearside kv put app/flags/dark-mode on
  nearside kv get app/flags/dark-mode
  nearside kv list app/
  nearside kv watch app/`,
	}
	group.AddCommand(a.kvGetCommand(), a.kvPutCommand(), a.kvDeleteCommand(), a.kvListCommand(), a.kvWatchCommand())
	return group
}

func (a *app) kvGetCommand() *cobra.Command {
	var raw bool
	c := &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key",
		Long: `Print the value of a key as text: characters that could steer a terminal are replaced,
and a line break is added where there is none. --raw prints the bytes as they are.
-o json has the revisions too. Exit 3 when there is no such key.`,
		Example: `  nearside kv get app/db/url
  nearside kv get app/logo --raw > logo.png
  nearside kv get app/db/url -o json`,
		Args: argCount(1, 1, "the key"),
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error { return s.kvGet(ctx, args[0], raw) }),
	}
	c.Flags().BoolVar(&raw, "raw", false, "the bytes as they are, and nothing else")
	withoutEnv(c.Flags(), "raw")
	return c
}

func (s *session) kvGet(ctx context.Context, key string, raw bool) error {
	if raw && s.out.machine() {
		return usagef(s.cmd, "--raw and -o %s both say how to print: give one", s.out.format)
	}
	if err := api.CheckKVKey(key); err != nil {
		return err
	}
	q := s.query()
	q.Set("meta", "true")
	var e api.KVEntry
	a, err := s.client.get(ctx, api.PathKVKey(key), q, &e)
	if err != nil {
		return s.kvMissing(err)
	}
	switch {
	case raw:
		if _, err := s.stdout.Write(e.Value); err != nil {
			return fmt.Errorf("writing the value: %w", err)
		}
	default:
		shown, changed := valueText(e.Value)
		v := view{data: e, names: []string{e.Key}, text: func(t *sheet) { t.b.WriteString(shown) }}
		if err := s.out.print(v); err != nil {
			return err
		}
		if changed && !s.out.machine() {
			s.note("the value has bytes that are not text; --raw prints them as they are")
		}
	}
	return s.checkAge(a.age, "what the node knows of its keys")
}

// valueText returns a value for people, with a line break at its end, and whether something
// had to be replaced.
func valueText(value []byte) (shown string, changed bool) {
	lines := strings.Split(strings.TrimSuffix(string(value), "\n"), "\n")
	for i, l := range lines {
		l = strings.TrimSuffix(l, "\r")
		lines[i] = clean(strings.ReplaceAll(l, "\t", "        "))
		changed = changed || strings.ContainsRune(lines[i], utf8.RuneError) && !strings.Contains(l, string(utf8.RuneError))
	}
	return strings.Join(lines, "\n") + "\n", changed
}

// casFlag is --cas and --epoch of the verbs that write.
type casFlag struct {
	revision uint64
	epoch    string
}

func (f *casFlag) add(c *cobra.Command, what string) {
	c.Flags().Uint64Var(&f.revision, "cas", 0, what)
	c.Flags().StringVar(&f.epoch, "epoch", "", "with --cas: only in the history that the revision is of (\"epoch\" in kv get -o json)")
	withoutEnv(c.Flags(), "cas", "epoch")
}

func (f *casFlag) set(c *cobra.Command, q url.Values) error {
	if c.Flags().Changed("cas") {
		q.Set("cas", strconv.FormatUint(f.revision, 10))
	}
	if !c.Flags().Changed("epoch") {
		return nil
	}
	switch e, err := api.ParseEpoch(f.epoch); {
	case err != nil, e.IsZero():
		return usagef(c, "--epoch %q is not an epoch: \"nearside kv get KEY -o json\" tells it", f.epoch)
	case !q.Has("cas"):
		return usagef(c, "--epoch says of which history --cas is: give both")
	}
	q.Set("epoch", f.epoch)
	return nil
}

func (a *app) kvPutCommand() *cobra.Command {
	var cas casFlag
	c := &cobra.Command{
		Use:   "put KEY VALUE|-|@FILE",
		Short: "Write a key",
		Long: `Write a key. The value is the argument, with - what comes on stdin, with @FILE the content
of a file. (A value that begins with @ or is a single - goes through stdin.)

--cas REVISION writes only if the key is at that revision, --cas 0 only if there is no such
key; otherwise exit 7, and the message names the revision that it is at. A region that is
restored begins its revisions anew: with --epoch a revision from before never matches.`,
		Example: `  nearside kv put app/flags/dark-mode on
  nearside kv put app/config @config.yaml --cas 42
  openssl rand 32 | nearside kv put app/seed - --cas 0`,
		Args: argCount(2, 2, "KEY or VALUE"),
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			return s.kvPut(ctx, args[0], args[1], &cas)
		}),
	}
	cas.add(c, "only if the key is at this revision; 0 = only if there is no such key")
	return c
}

func (s *session) kvPut(ctx context.Context, key, value string, cas *casFlag) error {
	if err := api.CheckKVKey(key); err != nil {
		return err
	}
	b, err := s.kvValue(value)
	if err != nil {
		return err
	}
	q := s.query()
	if err := cas.set(s.cmd, q); err != nil {
		return err
	}
	var w api.KVWritten
	if _, err := s.client.send(ctx, http.MethodPut, api.PathKVKey(key), q, &payload{"application/octet-stream", b}, &w); err != nil {
		return err
	}
	if err := s.out.print(view{data: w, names: []string{w.Key}, text: func(t *sheet) {
		t.table(s.labelled(append(narrow("KEY", "REVISION", "CREATED"), wideOnly("EPOCH")...), [][]cell{{
			text(w.Key), revision(w.Revision), revision(w.Created), text(w.Epoch.String()),
		}}))
	}}); err != nil {
		return err
	}
	if w.Created == w.Revision && !s.out.machine() {
		s.note("new; undo: nearside kv delete %s%s --cas %d", s.nsFlag(), w.Key, w.Revision)
	}
	return nil
}

// kvValue reads the value that an argument stands for.
func (s *session) kvValue(arg string) ([]byte, error) {
	var from io.Reader = strings.NewReader(arg)
	if arg == "-" {
		from = s.stdin
	} else if file, ok := strings.CutPrefix(arg, "@"); ok {
		f, err := os.Open(file)
		if err != nil {
			return nil, usagef(s.cmd, "the value: %s", err)
		}
		defer f.Close()
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, api.MaxKVValueBytes+1))
	switch {
	case err != nil:
		return nil, usagef(s.cmd, "the value: %s", err)
	case len(b) > api.MaxKVValueBytes:
		return nil, usagef(s.cmd, "the value has more than %d bytes", api.MaxKVValueBytes)
	}
	return b, nil
}

func revision(n uint64) cell { return text(strconv.FormatUint(n, 10)) }

func (a *app) kvDeleteCommand() *cobra.Command {
	var cas casFlag
	c := &cobra.Command{
		Use:   "delete KEY",
		Short: "Delete a key",
		Long:  `Delete a key. Exit 3 when there is no such key, 7 when --cas does not hold.`,
		Example: `  nearside kv delete app/flags/dark-mode
  nearside kv delete app/config --cas 42`,
		Args: argCount(1, 1, "the key"),
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			if err := api.CheckKVKey(args[0]); err != nil {
				return err
			}
			q := s.query()
			if err := cas.set(s.cmd, q); err != nil {
				return err
			}
			if _, err := s.client.do(ctx, http.MethodDelete, api.PathKVKey(args[0]), q, nil); err != nil {
				return s.kvMissing(err)
			}
			what := args[0]
			if s.ns != api.DefaultNamespace {
				what += " of namespace " + string(s.ns)
			}
			s.note("deleted %s", what)
			return nil
		}),
	}
	cas.add(c, "only if the key is at this revision")
	return c
}

func (a *app) kvListCommand() *cobra.Command {
	var values bool
	var limit int
	c := &cobra.Command{
		Use:   "list [PREFIX]",
		Short: "List the keys that begin with PREFIX",
		Long: `List the keys that begin with PREFIX, or all of the namespace, in order. An empty list is
no error.`,
		Example: `  nearside kv list app/
  nearside kv list app/ --values -o json
  nearside kv list -o name`,
		Args: argCount(0, 1, "the prefix"),
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			return s.kvList(ctx, strings.Join(args, ""), values, limit)
		}),
	}
	c.Flags().BoolVar(&values, "values", false, "with the values")
	c.Flags().IntVar(&limit, "limit", 0, "at most this many; 0 = all")
	withoutEnv(c.Flags(), "values", "limit")
	return c
}

func (s *session) kvList(ctx context.Context, prefix string, values bool, limit int) error {
	if limit < 0 {
		return usagef(s.cmd, "--limit %d is negative", limit)
	}
	q, err := s.kvQuery(prefix, values)
	if err != nil {
		return err
	}
	all := api.KVList{Namespace: s.ns, Prefix: prefix, Entries: []api.KVEntry{}}
	var last answer
	for {
		if limit > 0 {
			q.Set("limit", strconv.Itoa(min(limit-len(all.Entries), api.MaxListLimit)))
		}
		var page api.KVList
		if last, err = s.client.get(ctx, api.PathKV, q, &page); err != nil {
			return err
		}
		all.Entries = append(all.Entries, page.Entries...)
		if page.Cursor == "" || limit > 0 && len(all.Entries) >= limit {
			break
		}
		q.Set("cursor", page.Cursor)
	}
	v := view{data: all, lines: []any{}}
	var rows [][]cell
	for _, e := range all.Entries {
		v.lines = append(v.lines, e)
		v.names = append(v.names, e.Key)
		row := []cell{text(e.Key), number(e.Size), revision(e.Revision), revision(e.Created)}
		if values {
			row = append(row, text(oneLine(e.Value)))
		}
		rows = append(rows, row)
	}
	v.text = func(t *sheet) {
		columns := narrow("KEY", "BYTES", "REVISION", "CREATED")
		if values {
			columns = append(columns, narrow("VALUE")...)
		}
		t.table(s.labelled(columns, rows))
	}
	if err := s.out.print(v); err != nil {
		return err
	}
	if len(all.Entries) == 0 && !s.out.machine() {
		if prefix == "" {
			s.note("no keys in namespace %s", s.ns)
		} else {
			s.note("no keys begin with %s in namespace %s", prefix, s.ns)
		}
	}
	return s.checkAge(last.age, "what the node knows of its keys")
}

// kvMissing says of a "not found" what to do about it here.
func (s *session) kvMissing(err error) error {
	var ae *api.Error
	if !errors.As(err, &ae) || ae.Code != api.CodeKeyNotFound {
		return err
	}
	e := asCLI(err)
	e.remedy = "\"nearside kv list " + s.nsFlag() + "\""
	e.remedy = strings.ReplaceAll(e.remedy, " \"", "\"") + " lists the keys; -n names another namespace"
	return e
}

// kvQuery starts the query of a list or watch.
func (s *session) kvQuery(prefix string, values bool) (url.Values, error) {
	if err := api.CheckKVPrefix(prefix); err != nil {
		return nil, err
	}
	q := s.query()
	if prefix != "" {
		q.Set("prefix", prefix)
	}
	if !values {
		q.Set("keys", "true")
	}
	return q, nil
}

// oneLine is a value in one cell, cut when it is long.
func oneLine(value []byte) string {
	const most = 60
	s := strings.TrimRight(string(value), "\r\n")
	if first, _, more := strings.Cut(s, "\n"); more {
		s = first + " …"
	}
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "…"
	}
	return s
}

func (a *app) kvWatchCommand() *cobra.Command {
	var from string
	var values bool
	c := &cobra.Command{
		Use:   "watch [PREFIX]",
		Short: "Follow the keys that begin with PREFIX as they change",
		Long: `Follow the keys that begin with PREFIX, or all of the namespace: those there are, then
every change in order, until interrupted. A broken stream is taken up again where it broke.

-o json and -o jsonl print one frame of the API a line, with its kind as "event".`,
		Example: `  nearside kv watch app/
  nearside kv watch app/ --values -o jsonl`,
		Args: argCount(0, 1, "the prefix"),
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			q, err := s.kvQuery(strings.Join(args, ""), values)
			if err != nil {
				return err
			}
			q.Set("watch", "true")
			return s.followAll(ctx, api.PathKV, q, from)
		}),
	}
	c.Flags().StringVar(&from, "since", "", "version to go on from (the id of an earlier frame), instead of all keys first")
	c.Flags().BoolVar(&values, "values", true, "with the values")
	withoutEnv(c.Flags(), "since", "values")
	return c
}

// keyText is a frame about a key for people.
func keyText(f api.Frame) string {
	what := "is"
	if f.Kind == api.FrameChange {
		what = string(f.Op)
	}
	line := fmt.Sprintf("%-19s  %s", what, f.KV.Key)
	if f.Op == api.OpDelete {
		return line
	}
	line += fmt.Sprintf("  @%d  %d bytes", f.KV.Revision, f.KV.Size)
	if f.KV.Value != nil {
		line += "  " + oneLine(f.KV.Value)
	}
	return line
}
