package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/runtimes"
)

func newRuntime(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "runtime", Short: "List, get, find and remove the real binaries that meshes need", Args: noArguments,
		Example: `  meshbench runtime list
  meshbench runtime get envoy
  meshbench runtime path envoy@1.39`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	list := &cobra.Command{
		Use: "list", Short: "Tell which runtimes are here, and how the others can be had", Args: noArguments,
		Example: "  meshbench runtime list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			all, err := a.Runtimes().List(cmd.Context())
			if err != nil {
				return err
			}
			if e.output == "json" {
				return printJSON(e.stdout, struct {
					SchemaVersion int               `json:"schema_version"`
					Runtimes      []runtimes.Status `json:"runtimes"`
				}{meshbench.SchemaVersion, all})
			}
			w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "RUNTIME\tVERSION\tSTATE\tDETAIL")
			for _, s := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Name, s.Version, s.State, s.Detail)
			}
			return w.Flush()
		},
	}
	outputFlag(e, list, "table", "json")
	wants := arguments(1, 1, "one runtime, as envoy or envoy@1.40")
	get := &cobra.Command{
		Use: "get NAME[@VERSION]", Short: "Fetch a runtime ahead of its first use", Args: wants,
		Example: "  meshbench runtime get envoy@1.40",
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			name, version, err := runtimes.ParseRef(args[0])
			if err != nil {
				return err
			}
			p := newProgress(e)
			r, err := a.Runtimes().Get(cmd.Context(), name, version, p.fetching)
			p.end()
			if err != nil {
				return err
			}
			fmt.Fprintf(e.stdout, "%s %s is ready: %s (from %s, sha256 %s)\n", r.Name, r.Version, r.Path, r.Source, r.SHA256)
			return nil
		},
	}
	path := &cobra.Command{
		Use: "path NAME[@VERSION]", Short: "Print where a runtime is; it is not fetched", Args: wants,
		Example: "  $(meshbench runtime path envoy) --version",
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			name, version, err := runtimes.ParseRef(args[0])
			if err != nil {
				return err
			}
			where, err := a.Runtimes().Path(cmd.Context(), name, version)
			if err != nil {
				return err
			}
			fmt.Fprintln(e.stdout, where)
			return nil
		},
	}
	remove := &cobra.Command{
		Use: "remove NAME[@VERSION]", Short: "Remove a runtime from the cache", Args: wants,
		Example: "  meshbench runtime remove envoy@1.39",
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			name, version, err := runtimes.ParseRef(args[0])
			if err != nil {
				return err
			}
			removed, err := a.Runtimes().Remove(cmd.Context(), name, version)
			for _, v := range removed {
				fmt.Fprintf(e.stdout, "removed %s %s\n", name, v)
			}
			return err
		},
	}
	cmd.AddCommand(list, get, path, remove)
	return cmd
}
