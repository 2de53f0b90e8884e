package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	goruntime "runtime"
	"slices"
	"strings"
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
			if err := w.Flush(); err != nil {
				return err
			}
			for _, s := range all {
				if s.Hint != "" {
					fmt.Fprintf(e.stdout, "%s: %s\n", s.Name, s.Hint)
				}
			}
			return nil
		},
	}
	outputFlag(e, list, "table", "json")
	wants := arguments(1, 1, "one runtime, as envoy or envoy@1.40")
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
	cmd.AddCommand(list, newRuntimeGet(e), path, remove)
	return cmd
}

// newRuntimeGet fetches from the catalogue or, for a runtime that has no
// releases there, from a source that the user names and vouches for.
func newRuntimeGet(e *env) *cobra.Command {
	var image, archive, sum, file string
	cmd := &cobra.Command{
		Use: "get NAME[@VERSION]...", Short: "Fetch runtimes, or all that a mesh needs, ahead of the first use",
		Args: arguments(1, 100, "runtimes or meshes, as envoy@1.40 or istio"),
		Example: `  meshbench runtime get envoy@1.40
  meshbench runtime get istio
  meshbench runtime get linkerd2-proxy --archive URL --sha256 DIGEST --file NAME/linkerd2-proxy`,
		RunE: func(cmd *cobra.Command, args []string) error {
			source, err := userSource(image, archive, sum, file)
			if err != nil {
				return err
			}
			a, err := e.app()
			if err != nil {
				return err
			}
			if source != nil {
				if len(args) > 1 {
					return meshbench.Errorf(meshbench.Invalid, "one source is for one runtime").WithHint("see: meshbench runtime get --help")
				}
				p := newProgress(e)
				r, err := a.Runtimes().Add(cmd.Context(), args[0], source, p.fetching)
				p.end()
				if err != nil {
					return err
				}
				sayReady(e, r)
				return nil
			}
			var all []string
			for _, arg := range args {
				refs, err := a.Wanted(arg)
				if err != nil {
					return err
				}
				if len(refs) == 0 {
					fmt.Fprintf(e.stdout, "%s needs no runtime\n", arg)
				}
				for _, ref := range refs {
					if !slices.Contains(all, ref) {
						all = append(all, ref)
					}
				}
			}
			for _, ref := range all {
				name, version, err := runtimes.ParseRef(ref)
				if err != nil {
					return err
				}
				p := newProgress(e)
				r, err := a.Runtimes().Get(cmd.Context(), name, version, p.fetching)
				p.end()
				if err != nil {
					return err
				}
				sayReady(e, r)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&image, "image", "", "take it from this OCI image, named with its digest (only for a runtime that the catalogue has no release of)")
	flags.StringVar(&archive, "archive", "", "take it from the release archive at this URL (.tar.gz, .tgz or .zip), likewise")
	flags.StringVar(&sum, "sha256", "", "digest of the archive, in hexadecimal")
	flags.StringVar(&file, "file", "", "the program in the image or archive")
	return cmd
}

func sayReady(e *env, r runtimes.Runtime) {
	fmt.Fprintf(e.stdout, "%s %s is ready: %s (from %s, sha256 %s)\n", r.Name, r.Version, r.Path, r.Source, r.SHA256)
}

// userSource makes a source of the flags of get; nil if there are none.
func userSource(image, archive, sum, file string) (runtimes.Source, error) {
	platform := goruntime.GOOS + "/" + goruntime.GOARCH
	invalid := func(message string) error {
		return meshbench.Errorf(meshbench.Invalid, "%s", message).WithHint("see: meshbench runtime get --help")
	}
	switch {
	case image == "" && archive == "":
		if sum != "" || file != "" {
			return nil, invalid("--sha256 and --file belong to --archive or --image")
		}
		return nil, nil
	case image != "" && archive != "":
		return nil, invalid("--image and --archive exclude each other")
	case file == "":
		return nil, invalid("--file is missing: the program in the image or archive")
	case image != "":
		if sum != "" {
			return nil, invalid("--sha256 belongs to --archive; the digest of an image is in its name")
		}
		return runtimes.Image{Pins: map[string]runtimes.ImagePin{platform: {Reference: image, File: file}}}, nil
	}
	sum = strings.ToLower(sum)
	if raw, err := hex.DecodeString(sum); err != nil || len(raw) != sha256.Size {
		return nil, invalid("--sha256 must be the 64 hexadecimal digits of the archive's SHA-256")
	}
	return runtimes.Archive{Pins: map[string]runtimes.ArchivePin{platform: {URL: archive, Member: file, SHA256: sum}}}, nil
}
