package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/app"
	"github.com/meshbench/meshbench/internal/experiment"
	"github.com/meshbench/meshbench/internal/report"
)

// resultFormats are what a result can be printed as.
var resultFormats = []string{"table", "json", "ndjson", "markdown", "html", "junit"}

// experimentFlags adds the flags that say the same as an experiment file.
func experimentFlags(cmd *cobra.Command) *experiment.Flags {
	f := &experiment.Flags{}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.Subjects, "subjects", nil, "what is compared: none,envoy or envoy@1.39,envoy@1.40")
	fl.Var(&f.Baseline, "baseline", "id of the subject that the others are compared with (default: the first)")
	fl.Var(&f.Infra, "infra", "local|endpoint: where subjects run")
	fl.StringArrayVar(&f.URLs, "url", nil, "NAME=URL of an endpoint; repeat it for each")
	fl.Var(&f.Profile, "profile", "parity (same threads, TLS, logging for all)|shipped (the product's defaults)")
	fl.Var(&f.Protocol, "protocol", "http1")
	fl.Var(&f.Topology, "topology", "chain=5 or fan_out=3 (several sizes: chain=1,5), or a workload of the catalogue: shop@1")
	fl.Var(&f.Rate, "rate", "requests per second, or max for a closed loop; 200,800 measures both")
	fl.Var(&f.Arrivals, "arrivals", "poisson|constant")
	fl.Var(&f.Connections, "connections", "connections that the generator keeps")
	fl.Var(&f.Streams, "streams", "streams per connection (not with http1)")
	fl.Var(&f.Timeout, "timeout", "of a request, from its intended start")
	fl.Var(&f.Warmup, "warmup", "load before the first trial of a sitting, not counted")
	fl.Var(&f.Trial, "trial", "length of one trial")
	fl.StringArrayVar(&f.Metrics, "metrics", nil, "NAME=URL of a Prometheus endpoint to read during trials; repeat it for each")
	fl.Var(&f.Sittings, "sittings", "how often everything is deployed anew: the n of the statistics")
	fl.Var(&f.Blocks, "blocks", "trials of every cell per sitting")
	fl.Var(&f.MaxTime, "max-time", "what the run may take")
	fl.Var(&f.Until, "until", "stop when an interval is narrow enough (not built yet)")
	fl.Var(&f.Seed, "seed", "of the arrivals and the order of trials (default: drawn and recorded)")
	fl.StringArrayVar(&f.FailOn, "fail-on", nil, "condition for exit code 10, as 'response.p99>+5%'; repeat it for more")
	return f
}

func newRun(e *env) *cobra.Command {
	var flags *experiment.Flags
	var out string
	var force, printExperiment, dryRun bool
	cmd := &cobra.Command{
		Use:   "run [EXPERIMENT.yaml]",
		Short: "Compare subjects under one load, and say what each costs",
		Long: `Run deploys each subject with a workload behind it, offers the same load to each in
turn, and tells the difference with its interval. Without arguments: no mesh against an
Envoy sidecar pair with strict mutual TLS, 500 requests/s, in under 3 minutes.

` + exitCodes,
		Example: `  meshbench run
  meshbench run --subjects none,envoy --rate 200,800 --trial 10s
  meshbench run sidecar-cost.yaml --fail-on 'response.p99>+5%'
  meshbench run --subjects none,none                      the noise floor of this machine
  meshbench run --print-experiment > sidecar-cost.yaml    the file that these flags mean
  meshbench run --infra endpoint --url base=http://127.0.0.1:8080 --url next=http://127.0.0.1:8081`,
		Args: arguments(0, 1, "one experiment file at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("force") {
				flags.Force = &force
			}
			exp, err := readExperiment(e.stdin, args, *flags)
			if err != nil {
				return err
			}
			if printExperiment {
				text, err := experiment.YAML(exp)
				if err != nil {
					return err
				}
				_, err = e.stdout.Write(text)
				return err
			}
			a, err := e.app()
			if err != nil {
				return err
			}
			if dryRun {
				plan, err := a.Plan(exp)
				if err != nil {
					return err
				}
				return printPlan(e, plan)
			}
			return execute(cmd, e, a, exp, out)
		},
	}
	flags = experimentFlags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "run a plan that cannot reach significance")
	cmd.Flags().StringVar(&out, "out", "", "write the result to a file")
	cmd.Flags().BoolVar(&printExperiment, "print-experiment", false, "print the experiment file that this means, and end")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the plan and how long it takes, and end")
	outputFlag(e, cmd, resultFormats...)
	return cmd
}

// readExperiment reads the file, if one is named ("-" is standard input), and
// applies the flags to it or to the defaults.
func readExperiment(stdin io.Reader, args []string, flags experiment.Flags) (meshbench.Experiment, error) {
	exp := experiment.Defaults()
	if len(args) == 1 {
		var data []byte
		var err error
		if args[0] == "-" {
			data, err = io.ReadAll(stdin)
		} else {
			data, err = os.ReadFile(args[0])
		}
		if err != nil {
			return exp, meshbench.Errorf(meshbench.Invalid, "the experiment file: %w", err).
				WithHint("make one with: meshbench run --print-experiment > experiment.yaml")
		}
		if exp, err = experiment.Parse(args[0], data); err != nil {
			return exp, err
		}
	}
	return experiment.Apply(exp, flags)
}

func execute(cmd *cobra.Command, e *env, a *app.App, exp meshbench.Experiment, out string) error {
	p := newProgress(e)
	p.say("meshbench %s: %s on %s", app.Version(), strings.Join(exp.Subjects, " against "), exp.Infrastructure)
	result, trials, err := a.Run(cmd.Context(), exp, app.RunOptions{
		Progress: p.run, Fetching: p.fetching, Waiting: p.waiting, Planned: p.planned,
	})
	p.end()
	if result.ID == "" {
		if cmd.Context().Err() != nil {
			fail(e, nil, meshbench.Errorf(meshbench.Unavailable, "interrupted before anything was measured"))
			return exit(exitInterrupted)
		}
		return err
	}
	if printErr := printResult(e, result, trials, out, a.StorePath()); printErr != nil {
		return printErr
	}
	if err != nil && e.output != "json" {
		said := meshbench.AsError(err)
		fmt.Fprintf(e.stderr, "meshbench: %s\n", said.Message)
		if said.Hint != "" {
			fmt.Fprintf(e.stderr, "  hint: %s\n", said.Hint)
		}
	}
	if code := resultCode(result); code != exitOK {
		return exit(code)
	}
	if err != nil {
		return exit(exitError)
	}
	return nil
}

// resultCode is the exit code that a result deserves.
func resultCode(r meshbench.Result) int {
	switch r.State {
	case meshbench.Interrupted:
		return exitInterrupted
	case meshbench.Failed:
		return exitError
	}
	if r.Verdict.Status == meshbench.InvalidTest {
		return exitInvalid
	}
	if r.State == meshbench.Partial {
		return exitPartial
	}
	code := exitOK
	for _, f := range r.FailOn {
		switch f.Outcome {
		case "regression":
			return exitRegression
		case "inconclusive":
			code = exitInconclusive
		}
	}
	return code
}

// printResult prints a result as -o says, to --out or standard output.
func printResult(e *env, r meshbench.Result, trials []meshbench.Trial, out, store string) error {
	w, done, err := e.create(out)
	if err != nil {
		return err
	}
	switch e.output {
	case "json":
		err = report.JSON(w, r)
	case "ndjson":
		err = report.NDJSON(w, r, trials)
	case "markdown":
		err = report.Markdown(w, r)
	case "html":
		err = report.HTML(w, r)
	case "junit":
		err = report.JUnit(w, r)
	default:
		width, _ := terminal(w)
		err = report.Table(w, r, report.TableOptions{Color: out == "" && e.colour(), Width: width, Store: store})
	}
	if closeErr := done(); err == nil && closeErr != nil {
		err = meshbench.Errorf(meshbench.Unavailable, "writing the result: %w", closeErr)
	}
	return err
}

// printPlan prints what a run would do.
func printPlan(e *env, p meshbench.Plan) error {
	if e.output == "json" {
		return printJSON(e.stdout, struct {
			SchemaVersion int            `json:"schema_version"`
			Plan          meshbench.Plan `json:"plan"`
		}{meshbench.SchemaVersion, p})
	}
	fmt.Fprintf(e.stdout, "%d cells, %d sittings of %d blocks: %d trials in about %s, %s of it inside trials (without downloads)\n",
		len(p.Cells), p.Sittings, p.Blocks, p.TrialsTotal, round(p.Estimate), round(p.InTrials))
	for _, c := range p.Cells {
		against := "the baseline"
		if c.Baseline != "" {
			against = "compared with " + c.Baseline
		}
		fmt.Fprintf(e.stdout, "  %-24s %s requests/s, %s, %d connections, %s trials; %s\n", c.ID, c.Load.Rate, c.Load.Arrivals, c.Load.Connections, c.Load.Trial, against)
	}
	fmt.Fprintf(e.stdout, "%d quantiles are compared; each interval shown has level %.4f\n", p.FamilySize, p.Level)
	for _, w := range p.Warnings {
		fmt.Fprintf(e.stdout, "note: %s\n", w.Message)
	}
	return nil
}

func round(d meshbench.Duration) string { return d.Std().Round(time.Second).String() }
