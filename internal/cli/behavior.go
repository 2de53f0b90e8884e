package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/app"
	"github.com/meshbench/meshbench/internal/behavior"
	"github.com/meshbench/meshbench/internal/behavior/origin"
)

func newBehavior(e *env) *cobra.Command {
	o := app.BehaviorOptions{}
	var profile, out string
	cmd := &cobra.Command{
		Use:   "behavior",
		Short: "Find out what each mesh really does to requests, as a matrix",
		Long: `Behavior deploys each subject with two services and tries what it does: who is let in, which
code a timeout gives, whether a retry happens and how often, what becomes of trailers, odd
paths and malformed requests, what goes on when a proxy or the control plane is gone.

Each cell is passed (as expected), differs (clearly something else), unsupported (the mesh
does not have it; the evidence has the source) or failed (it could not be decided), with what
was sent and what was seen. A difference is no error, and there is no score.

` + exitCodes,
		Example: `  meshbench behavior
  meshbench behavior --subjects none,envoy --probe timeout,retry.post
  meshbench behavior --subjects envoy,istio,consul,mosn -o markdown --out docs/behavior.md`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Profile = meshbench.Profile(profile)
			if o.Profile != meshbench.Parity && o.Profile != meshbench.Shipped {
				return meshbench.Errorf(meshbench.Invalid, "profile %q is not one of parity, shipped", profile)
			}
			a, err := e.app()
			if err != nil {
				return err
			}
			p := newProgress(e)
			o.Fetching, o.Waiting, o.Progress = p.fetching, p.waiting, p.behavior
			m, err := a.Behavior(cmd.Context(), o)
			p.end()
			if err != nil && len(m.Cells) == 0 {
				return err
			}
			w, closeFile, failed := e.create(out)
			if failed != nil {
				return failed
			}
			switch e.output {
			case "json":
				failed = printJSON(w, m)
			case "markdown":
				failed = behavior.Markdown(w, m, "meshbench behavior --subjects "+strings.Join(o.Subjects, ","))
			default:
				failed = behavior.Table(w, m)
			}
			if e := closeFile(); failed == nil {
				failed = e
			}
			switch {
			case failed != nil:
				return failed
			case cmd.Context().Err() != nil:
				return exit(exitInterrupted)
			case err != nil:
				return err
			case m.Has(behavior.Failed):
				return exit(exitPartial)
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&o.Subjects, "subjects", []string{"none", "envoy"}, "what is tried: none,envoy,istio")
	cmd.Flags().StringSliceVar(&o.Probes, "probe", nil, "only these probes or groups: retry,timeout.code")
	cmd.Flags().StringVar(&profile, "profile", string(meshbench.Parity), "parity|shipped")
	cmd.Flags().StringVar(&out, "out", "", "write the matrix to a file")
	outputFlag(e, cmd, "table", "json", "markdown")
	return cmd
}

// newProbeWorkload is the application behind the mesh that probes talk to.
func newProbeWorkload() *cobra.Command {
	var o origin.Options
	cmd := &cobra.Command{
		Use: "probe", Short: "Keep every request as it arrived, and answer as told", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return origin.Serve(cmd.Context(), o) },
	}
	cmd.Flags().StringVar(&o.Listen, "listen", "127.0.0.1:8080", "address of the workload")
	cmd.Flags().StringVar(&o.Control, "control", "127.0.0.1:8081", "address that tells what arrived and is told what to answer")
	cmd.Flags().StringVar(&o.Service, "service", "echo", "name of the service")
	cmd.Flags().IntVar(&o.Instance, "instance", 0, "number of the instance")
	return cmd
}

func (p *progress) behavior(ev behavior.Event) {
	if ev.Cell == nil {
		p.show("deploying "+ev.Subject, "%s: deploying", ev.Subject)
		return
	}
	line := ev.Subject + " " + ev.Probe + ": " + string(ev.Cell.Result)
	if p.width > 0 {
		line = bar(ev.Done, ev.Total) + " " + line
	}
	p.show(ev.Subject+ev.Probe, "%s", line)
}
