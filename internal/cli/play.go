package cli

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/app"
	"github.com/meshbench/meshbench/internal/experiment"
	"github.com/meshbench/meshbench/internal/play"
)

func newPlay(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "play", Short: "Play with a mesh: bring it up, apply policies, send requests, look", Args: noArguments,
		Long: `Play brings up a sample application on a mesh and leaves it running. Apply policies, send
requests, and look at what the mesh makes of both. It ends by itself after a while of no
use, and with meshbench play down.`,
		Example: `  meshbench play up envoy
  meshbench play send --count 20
  meshbench play apply docs/examples/policies/resilience.yaml
  meshbench play status
  meshbench play down`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPlayUp(e), newPlayApply(e), newPlayStatus(e), newPlaySend(e), newPlayDown(e), newPlayServe(e))
	return cmd
}

func newPlayUp(e *env) *cobra.Command {
	flags := &experiment.Flags{}
	var idle time.Duration
	cmd := &cobra.Command{
		Use: "up [SUBJECT]", Short: "Start a sample application on a mesh (default: envoy)",
		Args: arguments(0, 1, "one subject at most, as envoy or istio@1.31"),
		Example: `  meshbench play up
  meshbench play up istio --topology shop@1`,
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			subject := meshbench.Subject{Mesh: "envoy", ID: "envoy"}
			if len(args) == 1 {
				if subject, err = meshbench.ParseSubject(args[0]); err != nil {
					return err
				}
			}
			if !cmd.Flags().Changed("topology") {
				if err := cmd.Flags().Set("topology", "shop@1"); err != nil {
					return err
				}
			}
			exp := experiment.Defaults()
			exp.Subjects = []string{subject.String()}
			if exp, err = experiment.Apply(exp, *flags); err != nil {
				return err
			}
			cells, err := experiment.Cells(exp)
			if err != nil {
				return err
			}
			p := newProgress(e)
			p.say("bringing up %s", subject)
			begun := time.Now()
			err = a.PlayUp(cmd.Context(), app.PlayOptions{
				Subject: cells[0].Subject, Profile: cells[0].Profile, Workload: cells[0].Workload, Idle: idle, Fetching: p.fetching,
			})
			p.end()
			if err != nil {
				return err
			}
			p.say("up after %s; it ends by itself after %s of no use", time.Since(begun).Round(10*time.Millisecond), idle)
			return showStatus(cmd, e, a)
		},
	}
	cmd.Flags().Var(&flags.Topology, "topology", "the sample application: a shop@1 of six services, chain=3 and the like (default: shop@1)")
	cmd.Flags().Var(&flags.Profile, "profile", "parity|shipped")
	cmd.Flags().DurationVar(&idle, "idle", 30*time.Minute, "end by itself after so long without a command; 0: never")
	outputFlag(e, cmd, "table", "json")
	return cmd
}

func newPlayApply(e *env) *cobra.Command {
	var none bool
	cmd := &cobra.Command{
		Use: "apply [FILE]", Short: "Make the policies of a file those in force",
		Long: `Apply makes the policies of a file those in force, in place of all before, and shows the
mesh's own configuration that they became. "-" is standard input.`,
		Args: arguments(0, 1, "one file of policies"),
		Example: `  meshbench play apply docs/examples/policies/resilience.yaml
  meshbench play apply --none        take all policies back`,
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			var policies []meshbench.Policy
			switch {
			case none == (len(args) == 1):
				return meshbench.Errorf(meshbench.Invalid, "name a file of policies, or take all back with --none")
			case !none:
				if policies, err = readPolicies(e.stdin, args[0]); err != nil {
					return err
				}
			}
			applied, err := a.Playground().Apply(cmd.Context(), policies)
			if err != nil {
				return err
			}
			if e.output == "json" {
				return printJSON(e.stdout, struct {
					SchemaVersion int `json:"schema_version"`
					play.Applied
				}{meshbench.SchemaVersion, applied})
			}
			for _, d := range applied.Documents {
				fmt.Fprintf(e.stdout, "# %s\n%s\n", d.Title, strings.TrimRight(d.Text, "\n"))
			}
			fmt.Fprintf(e.stdout, "%s in force after %s\n", plural(len(applied.Policies), "policy is", "policies are"), applied.Took.Std().Round(time.Millisecond))
			return nil
		},
	}
	cmd.Flags().BoolVar(&none, "none", false, "take all policies back")
	outputFlag(e, cmd, "table", "json")
	return cmd
}

// readPolicies reads a file of policies; "-" is standard input.
func readPolicies(stdin io.Reader, name string) ([]meshbench.Policy, error) {
	var data []byte
	var err error
	if name == "-" {
		name = "standard input"
		data, err = io.ReadAll(stdin)
	} else {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Invalid, "the file of policies: %w", err).WithHint("docs/policies.md shows what it holds")
	}
	return experiment.ParsePolicies(name, data)
}

func newPlayStatus(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show services, proxies, what they counted, and the policies in force", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			return showStatus(cmd, e, a)
		},
	}
	outputFlag(e, cmd, "table", "json")
	return cmd
}

func showStatus(cmd *cobra.Command, e *env, a *app.App) error {
	s, err := a.Playground().Status(cmd.Context())
	if err != nil {
		return err
	}
	if e.output == "json" {
		return printJSON(e.stdout, struct {
			SchemaVersion int `json:"schema_version"`
			play.Status
		}{meshbench.SchemaVersion, s})
	}
	fmt.Fprintf(e.stdout, "%s, up since %s\n", s.Subject, s.Since.Local().Format("15:04:05"))
	way := "requests enter at " + s.URL
	if s.Host != "" {
		way += " with Host: " + s.Host
	}
	fmt.Fprintln(e.stdout, way)
	if s.Problem != "" {
		fmt.Fprintf(e.stdout, "problem: %s\n", s.Problem)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "\nSERVICE\tINSTANCES\tCALLS\tRECEIVED\tLAST CALLER")
	for _, v := range s.Services {
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\n", v.Name, v.Instances, dash(strings.Join(v.Calls, ", ")), v.Requests, dash(v.PeerName))
	}
	fmt.Fprintln(w, "\nPROCESS\tROLE\tSTATE\tCPU\tMEMORY")
	for _, p := range s.Processes {
		state := "lives"
		if !p.Alive {
			state = "has ended"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.2f s\t%.1f MB\n", p.Name, strings.ReplaceAll(string(p.Role), "_", " "), state, p.CPUSeconds, float64(p.MemoryBytes)/1e6)
	}
	if len(s.Hops) > 0 {
		fmt.Fprintln(w, "\nHOP\tREQUESTS\tMTLS HANDSHAKES\tPLAINTEXT")
		for _, h := range s.Hops {
			fmt.Fprintf(w, "%s to %s\t%d\t%d\t%d\n", h.From, h.To, h.Requests, h.Handshakes, h.Plaintext)
		}
	}
	if len(s.Settings) > 0 {
		fmt.Fprintln(w, "\nSETTING\tAS OBSERVED")
		for _, v := range s.Settings {
			fmt.Fprintf(w, "%s\t%s\n", strings.ReplaceAll(v.Name, "_", " "), v.Value)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(s.Policies) == 0 {
		fmt.Fprintln(e.stdout, "\nNo policy is in force. Apply some with: meshbench play apply FILE")
		return nil
	}
	fmt.Fprintln(e.stdout, "\nPolicies in force:")
	for _, p := range s.Policies {
		kind, err := p.Kind()
		if err != nil {
			return err
		}
		line := string(kind)
		if p.To != "" {
			line += " to " + p.To
		}
		if p.Name != "" {
			line += " (" + p.Name + ")"
		}
		fmt.Fprintln(e.stdout, "  "+line)
	}
	return nil
}

// shownBytes is how much of a body is shown.
const shownBytes = 2000

func newPlaySend(e *env) *cobra.Command {
	s := play.Sending{}
	var headers []string
	timeout := 10 * time.Second
	cmd := &cobra.Command{
		Use: "send", Short: "Send requests by hand, and see what comes back", Args: noArguments,
		Example: `  meshbench play send
  meshbench play send --count 100 --rate 50
  meshbench play send --path /reviews --header 'x-user: dev'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			s.Headers = map[string]string{}
			for _, h := range headers {
				name, value, ok := strings.Cut(h, ":")
				if !ok || strings.TrimSpace(name) == "" {
					return meshbench.Errorf(meshbench.Invalid, "header %q is not of the form name: value", h)
				}
				s.Headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
			}
			s.Timeout = meshbench.Duration(timeout)
			sent, err := a.Playground().Send(cmd.Context(), s)
			if err != nil {
				return err
			}
			if e.output == "json" {
				return printJSON(e.stdout, struct {
					SchemaVersion int `json:"schema_version"`
					play.Sent
				}{meshbench.SchemaVersion, sent})
			}
			w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "ANSWER\tREQUESTS")
			for _, status := range slices.Sorted(maps.Keys(sent.Statuses)) {
				fmt.Fprintf(w, "%s\t%d\n", status, sent.Statuses[status])
			}
			if len(sent.Services) > 0 {
				fmt.Fprintln(w, "\nANSWERED BY\tREQUESTS")
				for _, name := range slices.Sorted(maps.Keys(sent.Services)) {
					fmt.Fprintf(w, "%s\t%d\n", name, sent.Services[name])
				}
			}
			if sent.Max > 0 {
				fmt.Fprintf(w, "\nTIME\tp50 %.3g ms\tp90 %.3g ms\tmax %.3g ms\n", sent.P50/1000, sent.P90/1000, sent.Max/1000)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if sent.Count == 1 && sent.Last.Status != "" {
				fmt.Fprintln(e.stdout)
				for _, name := range slices.Sorted(maps.Keys(sent.Last.Headers)) {
					fmt.Fprintf(e.stdout, "%s: %s\n", name, strings.Join(sent.Last.Headers[name], ", "))
				}
				body, rest := sent.Last.Body, ""
				if len(body) > shownBytes {
					body, rest = body[:shownBytes], fmt.Sprintf("... (%d bytes)", len(sent.Last.Body))
				}
				fmt.Fprintf(e.stdout, "\n%s%s\n", strings.TrimRight(body, "\n"), rest)
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&s.Count, "count", 1, "how many")
	cmd.Flags().Float64Var(&s.Rate, "rate", 0, "per second; 0: one after the other")
	cmd.Flags().StringVar(&s.Method, "method", "GET", "method")
	cmd.Flags().StringVar(&s.Path, "path", "/", "path")
	cmd.Flags().StringArrayVar(&headers, "header", nil, "'name: value'; repeat it for more")
	cmd.Flags().BoolVar(&s.Plain, "plain", false, "do not ask every service on the way what it received")
	cmd.Flags().StringVar(&s.Body, "body", "", "body")
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "of one request")
	outputFlag(e, cmd, "table", "json")
	return cmd
}

func newPlayDown(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End the playground", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			if err := a.Playground().Down(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintln(e.stdout, "nothing of it is left")
			return nil
		},
	}
}

func newPlayServe(e *env) *cobra.Command {
	var o app.PlayOptions
	var subject, profile string
	cmd := &cobra.Command{
		Use: "serve", Short: "Hold a playground", Hidden: true, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			if o.Subject, err = meshbench.ParseSubject(subject); err != nil {
				return err
			}
			o.Profile = meshbench.Profile(profile)
			return a.PlayServe(cmd.Context(), o, e.stdin, e.stdout)
		},
	}
	cmd.Flags().StringVar(&subject, "subject", "envoy", "subject")
	cmd.Flags().StringVar(&profile, "profile", string(meshbench.Parity), "profile")
	cmd.Flags().DurationVar(&o.Idle, "idle", 0, "end after so long without a command")
	return cmd
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
