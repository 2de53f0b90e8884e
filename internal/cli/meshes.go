package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/app"
)

func newMeshList(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "Tell how each mesh stands on this machine: ready, can be had, or why not", Args: noArguments,
		Example: "  meshbench mesh list\n  meshbench mesh list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			all, err := a.Meshes(cmd.Context())
			if err != nil {
				return err
			}
			if e.output == "json" {
				return printJSON(e.stdout, struct {
					SchemaVersion int              `json:"schema_version"`
					Meshes        []app.MeshStatus `json:"meshes"`
				}{meshbench.SchemaVersion, all})
			}
			for i, m := range all {
				if i > 0 {
					fmt.Fprintln(e.stdout)
				}
				printMesh(e.stdout, m)
			}
			return nil
		},
	}
	outputFlag(e, cmd, "table", "json")
	return cmd
}

// printMesh writes one mesh for people: its name, and what there is to say in
// lines of a word and its explanation.
func printMesh(w io.Writer, m app.MeshStatus) {
	fmt.Fprintf(w, "%s: %s\n", m.Name, m.Summary)
	line := func(word, format string, args ...any) {
		fmt.Fprintf(w, "  %-20s  %s\n", word, fmt.Sprintf(format, args...))
	}
	line(string(m.State), "%s", m.Detail)
	if m.Hint != "" {
		line("", "%s", m.Hint)
	}
	for _, r := range m.Runtimes {
		line("runtime", "%s: %s", strings.TrimSpace(r.Name+" "+r.Version), r.Detail)
	}
	if len(m.Versions) > 0 {
		line("versions", "%s", strings.Join(append([]string{m.Versions[0] + " (default)"}, m.Versions[1:]...), ", "))
	}
	for _, o := range m.Options {
		line("option", "%s=%s (%s)", o.Name, strings.Join(o.Values, "|"), o.Summary)
	}
	var can []string
	for _, c := range m.Capabilities {
		if c.Supported {
			can = append(can, c.Policy)
		}
	}
	if len(can) > 0 {
		line("policies", "%s", strings.Join(can, ", "))
	}
	for _, c := range m.Capabilities {
		switch {
		case !c.Supported:
			line("no "+c.Policy, "%s (%s)", c.Note, c.Source)
		case c.Note != "":
			line(c.Policy, "%s", c.Note)
		}
	}
}
