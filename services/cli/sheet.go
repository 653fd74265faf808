package cli

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nearside/nearside/sdk/api"
)

// sheet is text for people: tables and lines. It aligns by itself, because colours would
// count as width for text/tabwriter.
type sheet struct {
	b         *bytes.Buffer
	wide      bool
	color     bool
	noHeaders bool
}

// cell is one cell of a table. Its text may come from strangers: it is cleaned when printed.
type cell struct {
	text  string
	paint paint
}

// paint is an ANSI colour; 0 = none.
type paint int

const (
	green  paint = 32
	yellow paint = 33
	red    paint = 31
	grey   paint = 90
)

func text(s string) cell { return cell{text: s} }

func number(n int) cell { return cell{text: strconv.Itoa(n)} }

// column is a column's head; wide ones are left out of narrow tables.
type column struct {
	head string
	wide bool
}

func narrow(heads ...string) []column {
	out := make([]column, len(heads))
	for i, h := range heads {
		out[i] = column{head: h}
	}
	return out
}

func wideOnly(heads ...string) []column {
	out := narrow(heads...)
	for i := range out {
		out[i].wide = true
	}
	return out
}

// table writes rows under columns. A row has a cell for every column.
func (s *sheet) table(columns []column, rows [][]cell) {
	var lines [][]cell
	if !s.noHeaders {
		head := make([]cell, len(columns))
		for i, c := range columns {
			head[i] = text(c.head)
		}
		lines = append(lines, head)
	}
	lines = append(lines, rows...)
	widths := make([]int, len(columns))
	last := 0
	for i, c := range columns {
		if c.wide && !s.wide {
			continue
		}
		last = i
		for _, l := range lines {
			widths[i] = max(widths[i], utf8.RuneCountInString(shown(l[i])))
		}
	}
	for _, l := range lines {
		for i, c := range columns {
			if c.wide && !s.wide {
				continue
			}
			value := shown(l[i])
			s.b.WriteString(s.painted(value, l[i].paint))
			if i == last {
				break
			}
			s.b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(value)+2))
		}
		s.b.WriteByte('\n')
	}
}

// shown is a cell's text as printed: never empty, so that columns can be counted.
func shown(c cell) string {
	if c.text == "" {
		return "-"
	}
	return clean(c.text)
}

// pairs writes name and value lines, aligned.
func (s *sheet) pairs(pairs [][2]string) {
	width := 0
	for _, p := range pairs {
		width = max(width, len(p[0]))
	}
	for _, p := range pairs {
		s.line("%-*s  %s", width, p[0], p[1])
	}
}

// line writes one line; control characters in it are replaced.
func (s *sheet) line(format string, args ...any) {
	s.b.WriteString(strings.TrimRight(clean(fmt.Sprintf(format, args...)), " "))
	s.b.WriteByte('\n')
}

func (s *sheet) painted(v string, p paint) string {
	if !s.color || p == 0 {
		return v
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", p, v)
}

// clean replaces what could steer a terminal or forge a line.
func clean(s string) string {
	if strings.IndexFunc(s, notPrintable) < 0 && utf8.ValidString(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if notPrintable(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

func notPrintable(r rune) bool { return !unicode.IsPrint(r) }

// status is an instance's status in a table. It has no blank, so that columns can be counted.
func status(s api.Status, overdue bool) cell {
	c := cell{text: string(s)}
	switch s {
	case api.StatusPassing:
		c.paint = green
	case api.StatusWarning, api.StatusStarting, api.StatusDraining:
		c.paint = yellow
	case api.StatusCritical:
		c.paint = red
	}
	if overdue {
		c.text += "/overdue"
		c.paint = yellow
	}
	return c
}

// ageState paints how far knowledge can be trusted.
func ageState(s api.AgeState) cell {
	c := cell{text: string(s)}
	switch s {
	case api.AgeFresh:
		c.paint = green
	case api.AgeStale:
		c.paint = yellow
	case api.AgeSuspect, api.AgeExpired:
		c.paint = red
	}
	return c
}

func milliseconds(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

// age shows an age of ms milliseconds.
func age(d time.Duration) cell {
	if d == never {
		return text("never")
	}
	return text(shortDuration(d))
}

// shortDuration writes a duration in one unit, or two when they are large: "0s", "0.2s",
// "41s", "5m10s", "3h2m", "4d1h".
func shortDuration(d time.Duration) string {
	switch {
	case d < 50*time.Millisecond:
		return "0s"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

// share shows a weight of 0 to 1 as per cent, to a tenth.
func share(w float64) string {
	return strconv.FormatFloat(math.Round(w*1000)/10, 'f', -1, 64) + "%"
}
