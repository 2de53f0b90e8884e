package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/app"
	"github.com/meshbench/meshbench/internal/experiment"
	"github.com/meshbench/meshbench/internal/mesh"
)

func newMesh(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "mesh", Short: "Tell which meshes there are, how they stand here, and what policies become on them", Args: noArguments,
		Example: "  meshbench mesh list\n  meshbench mesh show envoy --policies docs/examples/policies/canary.yaml",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newMeshList(e), newMeshShow(e))
	return cmd
}

func newMeshShow(e *env) *cobra.Command {
	var file, profile string
	var services []string
	cmd := &cobra.Command{
		Use: "show MESH[@VERSION][:OPTION=VALUE]...", Short: "Print a mesh's own configuration for policies; nothing is started",
		Long: `Print the mesh's own configuration that policies become. Without policies, all
that the mesh is told is printed. Policies that the mesh cannot carry out are
listed on standard error with the reason, and the exit code is 2.`,
		Example: `  meshbench mesh show envoy
  meshbench mesh show envoy:mtls=off --policies docs/examples/policies/canary.yaml
  meshbench mesh show envoy --policies - -o json < policies.yaml`,
		Args: arguments(1, 1, "one mesh, as envoy or envoy@1.40:mtls=off"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			r := app.ShowRequest{Subject: args[0], Profile: meshbench.Profile(profile), Services: services}
			if file != "" {
				if r.Policies, err = e.policies(file); err != nil {
					return err
				}
			}
			shown, err := a.Show(r)
			if err != nil {
				return err
			}
			if err := printShown(e, shown); err != nil {
				return err
			}
			if len(shown.Unsupported) > 0 {
				return exit(exitUsage)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "policies", "", "file of policies (see: meshbench schema policies); - is standard input")
	cmd.Flags().StringVar(&profile, "profile", string(meshbench.Parity), "parity or shipped")
	cmd.Flags().StringSliceVar(&services, "services", nil, "names of the services, the first calls the others (default: those that the policies name)")
	outputFlag(e, cmd, "yaml", "json")
	return cmd
}

// policies reads a file of policies; "-" is standard input.
func (e *env) policies(file string) ([]meshbench.Policy, error) {
	var data []byte
	var err error
	if file == "-" {
		data, err = io.ReadAll(e.stdin)
	} else {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Invalid, "the file of policies: %w", err).
			WithHint("docs/policies.md shows how to write one")
	}
	return experiment.ParsePolicies(file, data)
}

func printShown(e *env, shown app.Shown) error {
	type missing struct {
		Policy meshbench.PolicyKind `json:"policy"`
		Reason string               `json:"reason"`
		Source string               `json:"source"`
	}
	unsupported := []missing{}
	for _, c := range shown.Unsupported {
		unsupported = append(unsupported, missing{c.Policy, c.Note, c.Source})
	}
	if e.output == "json" {
		documents := shown.Documents
		if documents == nil {
			documents = []mesh.Document{}
		}
		return printJSON(e.stdout, struct {
			SchemaVersion int             `json:"schema_version"`
			Subject       string          `json:"subject"`
			Documents     []mesh.Document `json:"documents"`
			Unsupported   []missing       `json:"unsupported"`
		}{meshbench.SchemaVersion, shown.Subject.String(), documents, unsupported})
	}
	for _, d := range shown.Documents {
		if _, err := fmt.Fprintf(e.stdout, "---\n# %s\n%s\n", d.Title, strings.TrimRight(d.Text, "\n")); err != nil {
			return err
		}
	}
	if len(unsupported) > 0 {
		fmt.Fprintf(e.stderr, "meshbench: %s cannot carry out:\n", shown.Subject)
		for _, m := range unsupported {
			fmt.Fprintf(e.stderr, "  %s: %s (%s)\n", m.Policy, m.Reason, m.Source)
		}
	}
	return nil
}
