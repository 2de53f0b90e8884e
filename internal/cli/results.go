package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/experiment"
	"github.com/meshbench/meshbench/internal/store"
)

// printJSON writes one document.
func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

func newResults(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "results",
		Short: "List, show and remove what earlier runs left",
		Example: `  meshbench results list
  meshbench results show latest
  meshbench results show 3 -o html --out run-3.html`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}

	var limit int
	var before string
	list := &cobra.Command{
		Use: "list", Short: "List runs, newest first",
		Example: "  meshbench results list --limit 20\n  meshbench results list -o json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			s, err := a.Store(cmd.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			runs, err := s.List(cmd.Context(), store.Page{Limit: limit, Before: before})
			if err != nil {
				return err
			}
			if e.output == "json" {
				if runs == nil {
					runs = []store.Summary{}
				}
				return printJSON(e.stdout, struct {
					SchemaVersion int             `json:"schema_version"`
					Runs          []store.Summary `json:"runs"`
				}{meshbench.SchemaVersion, runs})
			}
			if len(runs) == 0 {
				fmt.Fprintln(e.stdout, "No runs yet. Start one with: meshbench run")
				return nil
			}
			w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "#\tID\tSTARTED\tSTATE\tTRIALS\tRESULT")
			for _, r := range runs {
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%s\n", r.Number, r.ID, r.StartedAt.Local().Format("2006-01-02 15:04"), r.State, r.Trials, r.Headline)
			}
			return w.Flush()
		},
	}
	list.Flags().IntVar(&limit, "limit", 100, "how many at most (1000)")
	list.Flags().StringVar(&before, "before", "", "only runs before this id: the next page")
	outputFlag(e, list, "table", "json")

	var out string
	show := &cobra.Command{
		Use: "show RUN", Short: "Show a run: by its id, the beginning of it, its number, or latest",
		Example: "  meshbench results show latest\n  meshbench results show 3 -o html --out run-3.html",
		Args:    arguments(1, 1, "one run: its id, its number, or latest"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			result, trials, err := a.Result(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return printResult(e, result, trials, out, a.StorePath())
		},
	}
	show.Flags().StringVar(&out, "out", "", "write the result to a file")
	outputFlag(e, show, resultFormats...)

	remove := &cobra.Command{
		Use: "remove RUN...", Short: "Remove runs for good",
		Example: "  meshbench results remove 3",
		Args:    arguments(1, 1000, "at least one run: its id or its number"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			s, err := a.Store(cmd.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			for _, ref := range args {
				run, err := s.Run(cmd.Context(), ref)
				if err != nil {
					return err
				}
				if err := s.Remove(cmd.Context(), run.ID, a.Now()); err != nil {
					return err
				}
				if err := a.RemoveLogs(run.ID); err != nil {
					return err
				}
				fmt.Fprintf(e.stdout, "removed %s\n", run.ID)
			}
			return nil
		},
	}
	cmd.AddCommand(list, show, remove)
	return cmd
}

func newSchema(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of a document", Args: noArguments,
		Example: "  meshbench schema experiment > experiment.schema.json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, s := range []struct {
		name, of string
		schema   func() []byte
	}{{"experiment", "an experiment file", experiment.Schema}, {"policies", "a file of policies", experiment.PoliciesSchema}} {
		cmd.AddCommand(&cobra.Command{
			Use: s.name, Short: "Print the JSON Schema of " + s.of, Args: noArguments,
			Example: "  meshbench schema " + s.name + " > " + s.name + ".schema.json",
			RunE: func(*cobra.Command, []string) error {
				_, err := e.stdout.Write(s.schema())
				return err
			},
		})
	}
	return cmd
}
