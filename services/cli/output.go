package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// The output formats.
const (
	formatTable   = "table"
	formatWide    = "wide"    // a table with more columns
	formatJSON    = "json"    // the API's own shape
	formatJSONL   = "jsonl"   // one object of the API a line
	formatYAML    = "yaml"    // the shape of json
	formatName    = "name"    // one name a line
	formatAddress = "address" // one host:port a line, of verbs that answer with endpoints
)

var formats = []string{formatTable, formatWide, formatJSON, formatJSONL, formatYAML, formatName, formatAddress}

// view is an answer that can be printed in every format.
type view struct {
	data      any          // json and yaml
	lines     []any        // jsonl; nil = data on one line
	names     []string     // name
	addresses []string     // address; nil = the verb has none
	text      func(*sheet) // table and wide
}

// printer prints views in the format that was asked for.
type printer struct {
	to        io.Writer
	format    string
	color     bool
	noHeaders bool
}

func (a *app) newPrinter(c *cobra.Command) (*printer, error) {
	g := &a.flags
	if !slices.Contains(formats, g.output) {
		return nil, &cliError{
			exit: ExitUsage, detail: fmt.Sprintf("there is no output format %q", g.output),
			remedy: "use one of " + strings.Join(formats, ", "),
		}
	}
	p := &printer{to: a.stdout, format: g.output, noHeaders: g.noHeaders}
	switch g.color {
	case "always":
		p.color = true
	case "never":
	case "auto":
		noColor, _ := a.lookupEnv("NO_COLOR")
		term, _ := a.lookupEnv("TERM")
		p.color = noColor == "" && term != "dumb" && isTerminal(a.stdout)
	default:
		return nil, usagef(c, "--color is auto, always or never, not %q", g.color)
	}
	return p, nil
}

// isTerminal reports whether v is a file that is a terminal.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// machine reports whether the output is for programs.
func (p *printer) machine() bool { return p.format != formatTable && p.format != formatWide }

// print writes v; nothing is written when v cannot be told in the format.
func (p *printer) print(v view) error {
	var b bytes.Buffer
	if err := p.render(&b, v); err != nil {
		return err
	}
	if _, err := p.to.Write(b.Bytes()); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

func (p *printer) render(b *bytes.Buffer, v view) error {
	switch p.format {
	case formatJSON:
		return encodeJSON(b, v.data, "  ")
	case formatYAML:
		return encodeYAML(b, v.data)
	case formatJSONL:
		if v.lines == nil {
			return encodeJSON(b, v.data, "")
		}
		for _, l := range v.lines {
			if err := encodeJSON(b, l, ""); err != nil {
				return err
			}
		}
	case formatName:
		writeLines(b, v.names)
	case formatAddress:
		if v.addresses == nil {
			return &cliError{
				exit: ExitUsage, detail: "this verb has no -o address",
				remedy: "use it with resolve, services NAME or instances",
			}
		}
		writeLines(b, v.addresses)
	default:
		v.text(&sheet{b: b, wide: p.format == formatWide, color: p.color, noHeaders: p.noHeaders})
	}
	return nil
}

func writeLines(b *bytes.Buffer, lines []string) {
	for _, l := range lines {
		b.WriteString(clean(l))
		b.WriteByte('\n')
	}
}

func encodeJSON(b *bytes.Buffer, v any, indent string) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	return enc.Encode(v)
}

// encodeYAML writes the JSON form of v as YAML, so that names and order are the API's.
func encodeYAML(b *bytes.Buffer, v any) error {
	j, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(j, &doc); err != nil {
		return err
	}
	plain(&doc)
	enc := yaml.NewEncoder(b)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return err
	}
	return enc.Close()
}

// plain turns JSON's style of a node into YAML's. Names that older readers of YAML take for
// a truth value ("no" is a fine name of a region) keep their quotes.
func plain(n *yaml.Node) {
	switch {
	case n.Kind == yaml.ScalarNode && slices.Contains([]string{"y", "n", "yes", "no", "on", "off"}, strings.ToLower(n.Value)):
	case len(n.Content) > 0 || n.Kind == yaml.ScalarNode:
		n.Style = 0
	}
	for _, c := range n.Content {
		plain(c)
	}
}
