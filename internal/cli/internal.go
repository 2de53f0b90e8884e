package cli

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra/local"
	"github.com/meshbench/meshbench/internal/load/worker"
	"github.com/meshbench/meshbench/internal/mesh/envoy/controlplane"
	linkerd "github.com/meshbench/meshbench/internal/mesh/linkerd/controlplane"
	"github.com/meshbench/meshbench/internal/telemetry/statsd"
	"github.com/meshbench/meshbench/internal/workload"
)

// The commands below are how Meshbench starts itself: each is a process of
// its own, with its own CPU and memory to be counted.

func newWorker(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "worker", Short: "Generate load as told on standard input", Hidden: true, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// A Ctrl-C at the terminal reaches this process too, but it is the
			// driver's to stop the load and to ask for what was measured. The
			// load ends when standard input does.
			return worker.Serve(context.WithoutCancel(cmd.Context()), e.stdin, e.stdout)
		},
	}
}

func newSupervisor(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "supervisor", Short: "Start processes, and end them when standard input closes", Hidden: true, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return local.Supervise(cmd.Context(), e.stdin, e.stdout) },
	}
}

func newWorkload(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "workload", Short: "Serve what is behind a mesh", Hidden: true, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var o workload.Options
	var node string
	echo := &cobra.Command{
		Use: "echo", Short: "Answer every request with the same number of bytes, or as it asks", Args: noArguments,
		Example: "  meshbench workload echo --listen 127.0.0.1:8080 --body-bytes 1024",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if node != "" {
				text, err := os.ReadFile(node)
				if err != nil {
					return meshbench.Errorf(meshbench.Invalid, "the service's node: %w", err)
				}
				if o.Node, err = workload.ReadNode(text); err != nil {
					return err
				}
			}
			return workload.Serve(cmd.Context(), o)
		},
	}
	echo.Flags().StringVar(&o.Listen, "listen", "127.0.0.1:8080", "address of the workload")
	echo.Flags().StringVar(&o.Control, "control", "", "address that tells what was received")
	echo.Flags().IntVar(&o.BodyBytes, "body-bytes", 1024, "length of every answer")
	echo.Flags().StringVar(&o.Service, "service", meshbench.EchoService, "name of the service")
	echo.Flags().IntVar(&o.Instance, "instance", 0, "number of the instance, from 0")
	echo.Flags().StringVar(&node, "node", "", "JSON file: the service's own time, errors and calls")
	cmd.AddCommand(echo, newProbeWorkload())
	return cmd
}

func newControlPlane(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "control-plane", Short: "Run a control plane of Meshbench's own", Hidden: true, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var o controlplane.Options
	envoy := &cobra.Command{
		Use: "envoy", Short: "Configure Envoys over ADS", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return controlplane.Serve(cmd.Context(), o) },
	}
	envoy.Flags().StringVar(&o.Listen, "listen", "127.0.0.1:18000", "address of the ADS server")
	envoy.Flags().StringVar(&o.Admin, "admin", "127.0.0.1:18001", "address that takes the configuration")
	var l linkerd.Options
	forLinkerd := &cobra.Command{
		Use: "linkerd", Short: "Configure Linkerd's proxies over Linkerd's API", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return linkerd.Serve(cmd.Context(), l) },
	}
	forLinkerd.Flags().StringVar(&l.Listen, "listen", "127.0.0.1:8086", "address of the API")
	forLinkerd.Flags().StringVar(&l.Admin, "admin", "127.0.0.1:8087", "address that takes the configuration")
	forLinkerd.Flags().StringVar(&l.Credentials, "credentials", "credentials.json", "file with its certificate and the authority")
	cmd.AddCommand(envoy, forLinkerd)
	return cmd
}

func newStatsd(*env) *cobra.Command {
	var o statsd.Options
	cmd := &cobra.Command{
		Use: "statsd", Short: "Receive what programs tell in the StatsD protocol", Hidden: true, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return statsd.Serve(cmd.Context(), o) },
	}
	cmd.Flags().StringVar(&o.Listen, "listen", "127.0.0.1:8125", "UDP address that takes the metrics")
	cmd.Flags().StringVar(&o.Admin, "admin", "127.0.0.1:8126", "address that tells what was received")
	return cmd
}
