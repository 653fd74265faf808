package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nearside/nearside/sdk/api"
)

// The exit codes: part of the public surface, so none ever changes its meaning.
const (
	ExitOK          = 0
	ExitError       = 1   // anything without a code of its own
	ExitUsage       = 2   // wrong flags, arguments or values
	ExitNotFound    = 3   // no such service, instance, region or key
	ExitFalse       = 4   // no healthy instance, or a condition that does not hold
	ExitUnreachable = 5   // no node answered, or the store behind it does not
	ExitNotAllowed  = 6   // no token, a wrong one, or no right to do it
	ExitConflict    = 7   // changed meanwhile, or a newer incarnation exists
	ExitTimeout     = 8   // a node took the request but gave no answer in time
	ExitStale       = 9   // only data older than --max-stale
	ExitPartial     = 10  // some regions did not answer; what there is was printed
	ExitInterrupted = 130 // by Ctrl-C or a signal
)

// cliError is an error with its exit code and what people need to know about it.
type cliError struct {
	exit      int
	detail    string // what, and the cause
	remedy    string // what to do; lines
	code      api.Code
	requestID string
	err       error
	silent    bool // everything has been said
	reached   bool // no answer, but a node may have acted on the request
}

func (e *cliError) Error() string {
	if e.detail == "" && e.err != nil {
		return e.err.Error()
	}
	return e.detail
}

// ExitCode returns the exit code that the error stands for.
func (e *cliError) ExitCode() int { return e.exit }

func (e *cliError) Unwrap() error { return e.err }

// exitOf returns the exit code for a registry's code.
func exitOf(code api.Code) int {
	switch code {
	case api.CodeInvalidRequest, api.CodeUnknownField, api.CodeUnknownParameter, api.CodeInvalidField,
		api.CodeUnsupported, api.CodeBodyTooLarge:
		return ExitUsage
	case api.CodeUnauthorized, api.CodeForbidden:
		return ExitNotAllowed
	case api.CodeNotFound, api.CodeServiceNotFound, api.CodeInstanceNotFound, api.CodeRegionNotFound,
		api.CodeKeyNotFound, api.CodePolicyNotFound:
		return ExitNotFound
	case api.CodeStaleIncarnation, api.CodeConflict:
		return ExitConflict
	case api.CodeTimeout, api.CodeRevisionNotReached:
		return ExitTimeout
	case api.CodeUnavailable, api.CodeShuttingDown:
		// A node said so, but what was asked for could not be reached: trying again later
		// or elsewhere is right, as it is for a node that is gone.
		return ExitUnreachable
	}
	return ExitError
}

// asCLI returns err in the form that report prints.
func asCLI(err error) *cliError {
	var ce *cliError
	if errors.As(err, &ce) {
		return ce
	}
	var ae *api.Error
	if errors.As(err, &ae) {
		return &cliError{
			exit: exitOf(ae.Code), detail: ae.Detail, remedy: ae.Remedy,
			code: ae.Code, requestID: ae.RequestID, err: err,
		}
	}
	out := &cliError{exit: ExitError, detail: err.Error(), err: err}
	var withCode interface{ ExitCode() int }
	switch {
	case errors.As(err, &withCode):
		out.exit = withCode.ExitCode()
	case errors.Is(err, context.DeadlineExceeded):
		out.exit = ExitTimeout
	}
	return out
}

// report prints err and returns the exit code.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return ExitOK
	}
	var withCode interface{ ExitCode() int }
	if errors.Is(ctx.Err(), context.Canceled) && !errors.As(err, &withCode) {
		fmt.Fprintln(a.stderr, "interrupted")
		return ExitInterrupted
	}
	e := asCLI(err)
	if e.silent {
		return e.exit
	}
	fmt.Fprintf(a.stderr, "error: %s\n", indented(e.Error()))
	if e.remedy != "" {
		fmt.Fprintf(a.stderr, "  %s\n", indented(e.remedy))
	}
	if e.code != "" {
		line := "code " + string(e.code)
		if e.requestID != "" {
			line += ", request " + e.requestID
		}
		fmt.Fprintf(a.stderr, "  (%s)\n", clean(line))
	}
	return e.exit
}

// indented cleans a message and moves its later lines in.
func indented(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i := range lines {
		lines[i] = clean(strings.TrimRight(lines[i], " \r"))
	}
	return strings.Join(lines, "\n  ")
}
