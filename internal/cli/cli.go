// Package cli is the command line: flags in, results on standard output,
// progress and logs on standard error, an exit code.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/app"
)

// The exit codes, as docs/exit-codes.md has them.
const (
	exitOK              = 0
	exitError           = 1
	exitUsage           = 2
	exitUnauthenticated = 4
	exitForbidden       = 5
	exitRegression      = 10
	exitInconclusive    = 11
	exitInvalid         = 12
	exitPartial         = 13
	exitInterrupted     = 130
)

// exitCodes is the table that --help shows.
const exitCodes = `Exit codes:
    0  fine
    1  error
    2  wrong usage: a flag, an argument or an experiment file
    4  not signed in
    5  forbidden by policy
   10  regression found     (with --fail-on)
   11  not decided          (with --fail-on)
   12  the run is invalid: its figures must not be used
   13  partial: some cells could not be measured
  130  interrupted`

// exit is an error that only says which code to end with; what there was to
// say has been said.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// env is what a command is run with.
type env struct {
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer

	dataDir string
	quiet   bool
	verbose bool
	output  string // -o of the command that runs
}

// Main runs the command line and returns the exit code.
func Main(args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := interruptible()
	defer stop()
	e := &env{environ: environ, stdin: stdin, stdout: stdout, stderr: stderr}
	root := newRoot(e)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var code exit
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	}
	fail(e, args, err)
	switch meshbench.AsError(err).Code {
	case meshbench.Invalid:
		return exitUsage
	case meshbench.Unauthenticated:
		return exitUnauthenticated
	case meshbench.Forbidden:
		return exitForbidden
	}
	if ctx.Err() != nil {
		return exitInterrupted
	}
	return exitError
}

// interruptible returns a context that the first Ctrl-C ends; the second ends
// the process, hard. What was started is then the supervisor's to end.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		if _, ok := <-signals; !ok {
			return
		}
		cancel()
		if _, ok := <-signals; ok {
			os.Exit(exitInterrupted)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel()
	}
}

// fail says what went wrong: on standard error for people, and as the one
// document on standard output for a script that asked for JSON.
func fail(e *env, args []string, err error) {
	said := meshbench.AsError(err)
	if wantsJSON(e, args) {
		encoder := json.NewEncoder(e.stdout)
		encoder.SetEscapeHTML(false)
		encoder.Encode(map[string]any{"schema_version": meshbench.SchemaVersion, "error": said})
		return
	}
	fmt.Fprintf(e.stderr, "meshbench: %s\n", said.Message)
	if said.Hint != "" {
		fmt.Fprintf(e.stderr, "  hint: %s\n", said.Hint)
	}
}

// wantsJSON looks at the arguments themselves where the flags could not be
// read.
func wantsJSON(e *env, args []string) bool {
	if e.output != "" {
		return e.output == "json" || e.output == "ndjson"
	}
	for i, a := range args {
		if a == "-o=json" || a == "-ojson" || a == "--output=json" {
			return true
		}
		if (a == "-o" || a == "--output") && i+1 < len(args) && args[i+1] == "json" {
			return true
		}
	}
	return false
}

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "meshbench",
		Short: "Measure what a service mesh costs, with evidence",
		Long: `Meshbench measures what a service mesh costs your traffic: it runs real proxies,
sends real requests, and tells the difference with its interval and a verdict.

` + exitCodes,
		Example: `  meshbench run                                   no mesh against an Envoy sidecar pair
  meshbench run --subjects envoy@1.39,envoy@1.40  two releases in one run
  meshbench run --infra endpoint --url base=http://127.0.0.1:8080 --url next=http://127.0.0.1:8081
  meshbench load http://127.0.0.1:8080/ --rate 2000
  meshbench results list`,
		SilenceUsage:               true,
		SilenceErrors:              true,
		SuggestionsMinimumDistance: 2,
		Version:                    app.Version(),
		Args:                       noArguments,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("meshbench {{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringVar(&e.dataDir, "data-dir", "", "directory of results and logs (default: the user's data directory)")
	flags.BoolVarP(&e.quiet, "quiet", "q", false, "no progress on standard error")
	flags.BoolVar(&e.verbose, "verbose", false, "log what happens to standard error")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return meshbench.Errorf(meshbench.Invalid, "%v", err).WithHint("see: %s --help", cmd.CommandPath())
	})
	root.AddCommand(
		newRun(e), newBehavior(e), newPlay(e), newLoad(e), newResults(e), newRuntime(e), newMesh(e), newSchema(e), newDoctor(e),
		newWorker(e), newSupervisor(e), newWorkload(e), newControlPlane(e),
		newStatsd(e),
	)
	root.InitDefaultCompletionCmd()
	return root
}

// noArguments refuses arguments with a hint: the nearest command's name, if
// there is one.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see: " + cmd.CommandPath() + " --help"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean: " + cmd.CommandPath() + " " + strings.Join(near, ", ")
	}
	return meshbench.Errorf(meshbench.Invalid, "%s does not know %q", cmd.CommandPath(), args[0]).WithHint("%s", hint)
}

// arguments wants from least to most of them.
func arguments(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return meshbench.Errorf(meshbench.Invalid, "%s wants %s", cmd.CommandPath(), what).WithHint("see: %s --help", cmd.CommandPath())
		}
		return nil
	}
}

// outputFlag adds -o with what a command can print; the first is the default.
func outputFlag(e *env, cmd *cobra.Command, formats ...string) {
	cmd.Flags().StringVarP(&e.output, "output", "o", formats[0], strings.Join(formats, "|"))
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if !cmd.Flags().Changed("output") {
			e.output = formats[0] // commands share the variable, not the default
		}
		if !slices.Contains(formats, e.output) {
			return meshbench.Errorf(meshbench.Invalid, "output %q is not one of %s", e.output, strings.Join(formats, ", "))
		}
		return nil
	}
}

func (e *env) app() (*app.App, error) {
	level := slog.LevelWarn
	if e.verbose {
		level = slog.LevelDebug
	}
	return app.New(e.dataDir, e.environ, slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: level})))
}

// terminal tells whether w is one, and how wide.
func terminal(w io.Writer) (width int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 40 {
		width = 80
	}
	return width, true
}

// colour tells whether standard output may be coloured (https://no-color.org).
func (e *env) colour() bool {
	_, ok := terminal(e.stdout)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// create opens --out, or standard output where it is empty.
func (e *env) create(path string) (io.Writer, func() error, error) {
	if path == "" {
		return e.stdout, func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, nil, meshbench.Errorf(meshbench.Unavailable, "writing the result: %w", err)
	}
	return f, f.Close, nil
}
