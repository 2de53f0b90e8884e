//go:build ignore

// Command mosn is MOSN with what Meshbench needs of it: HTTP/1.1 and HTTP/2,
// mutual TLS, the filters that policies become, and the admin endpoint. Two
// things are ours: the handler that takes a configuration while MOSN runs, and
// a network filter that looks at connections, since MOSN counts no handshakes.
package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/urfave/cli"
	"mosn.io/mosn/pkg/admin/server"
	v2 "mosn.io/mosn/pkg/config/v2"
	"mosn.io/mosn/pkg/metrics"
	"mosn.io/mosn/pkg/mosn"
	"mosn.io/mosn/pkg/stagemanager"

	_ "mosn.io/mosn/istio/istio1106/filter/stream/rbac"
	_ "mosn.io/mosn/pkg/admin/debug"
	_ "mosn.io/mosn/pkg/filter/network/connectionmanager"
	_ "mosn.io/mosn/pkg/filter/network/proxy"
	_ "mosn.io/mosn/pkg/filter/stream/faultinject"
	_ "mosn.io/mosn/pkg/filter/stream/mirror"
	_ "mosn.io/mosn/pkg/filter/stream/transcoder/httpconv"
	_ "mosn.io/mosn/pkg/metrics/sink"
	_ "mosn.io/mosn/pkg/mtls/extensions/sni"
	_ "mosn.io/mosn/pkg/network"
	_ "mosn.io/mosn/pkg/protocol"
	_ "mosn.io/mosn/pkg/router"
	_ "mosn.io/mosn/pkg/server/keeper"
	_ "mosn.io/mosn/pkg/stream/http"
	_ "mosn.io/mosn/pkg/stream/http2"
	_ "mosn.io/mosn/pkg/upstream/healthcheck"
)

// version is that of the module mosn.io/mosn in go.mod.
const version = "1.6.1"

func main() {
	app := cli.NewApp()
	app.Name, app.Version = "mosn", version
	app.Commands = []cli.Command{{
		Name: "start",
		Flags: []cli.Flag{
			cli.StringFlag{Name: "config, c", Usage: "the configuration to start with"},
		},
		Action: start,
	}}
	if err := app.Run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func start(c *cli.Context) error {
	server.RegisterAdminHandleFunc(configurationPath, takeConfiguration)
	server.RegisterAdminHandleFunc(observedPath, showObserved)
	stages := stagemanager.InitStageManager(c, c.String("config"), mosn.NewMosn())
	stages.AppendInitStage(mosn.DefaultInitStage)
	stages.AppendInitStage(func(*v2.MOSNConfig) {
		metrics.SetVersion(version)
		metrics.SetGoVersion(runtime.Version())
		server.SetVersion(version)
	})
	stages.AppendPreStartStage(mosn.DefaultPreStartStage)
	stages.AppendStartStage(mosn.DefaultStartStage)
	stages.RunAll()
	return nil
}
