package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/app"
)

func newDoctor(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check whether this machine is fit to measure, with a hint per finding", Args: noArguments,
		Example: "  meshbench doctor\n  meshbench doctor -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := e.app()
			if err != nil {
				return err
			}
			findings := a.Doctor(cmd.Context())
			failed := 0
			for _, f := range findings {
				if f.Status == app.Fail {
					failed++
				}
			}
			if e.output == "json" {
				if err := printJSON(e.stdout, struct {
					SchemaVersion int           `json:"schema_version"`
					Findings      []app.Finding `json:"findings"`
				}{meshbench.SchemaVersion, findings}); err != nil {
					return err
				}
			} else {
				marks := map[app.FindingStatus]string{app.OK: "ok", app.Warn: "warn", app.Fail: "FAIL"}
				for _, f := range findings {
					fmt.Fprintf(e.stdout, "%-4s  %-15s  %s\n", marks[f.Status], f.Check, f.Message)
					if f.Hint != "" {
						fmt.Fprintf(e.stdout, "%23s%s\n", "", f.Hint)
					}
				}
			}
			if failed > 0 {
				return exit(exitError)
			}
			return nil
		},
	}
	outputFlag(e, cmd, "table", "json")
	return cmd
}
