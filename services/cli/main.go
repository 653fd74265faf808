package cli

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// Main runs the command that args name (without the program's name) and returns its exit
// code; see the Exit constants. It prints errors to stderr and never calls os.Exit. When
// ctx ends first, the command is interrupted and the code is [ExitInterrupted], unless the
// command ended in its own way all the same.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{
		stdin: stdin, stdout: stdout, stderr: stderr,
		lookupEnv: os.LookupEnv, now: time.Now, notifySignals: osSignals,
		siblings: siblingCommands(),
	}
	return a.run(ctx, args)
}

// app is one run of the program and what it was given; tests give other things.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	lookupEnv      func(string) (string, bool)
	now            func() time.Time
	notifySignals  func() (<-chan os.Signal, func()) // see osSignals
	siblings       []*cobra.Command

	flags globalFlags
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.newRoot()
	if args == nil {
		args = []string{} // nil would make cobra read os.Args
	}
	root.SetArgs(args)
	return a.report(ctx, root.ExecuteContext(ctx))
}
