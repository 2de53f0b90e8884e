// Command bench prints the figures of `make bench`: name, value and unit, one
// a line. Each figure that says how good the generator is is a ratio against
// a public tool that ran in turn with it, on the same server, in the same
// minute. All traffic stays on loopback.
//
//	bench [-meshbench FILE] [-rounds 5] [accuracy|generator|lateness|oracle|run|start]...
//	bench -repeat 10
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The CPUs of server and generator; a machine with one has no figures to give.
const (
	generatorCPU = "0"
	serverCPU    = "1"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "oracle-server" {
		if err := serveOracle(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "oracle:", err)
			os.Exit(1)
		}
		return
	}
	binary := flag.String("meshbench", "bin/meshbench", "the program that is measured")
	rounds := flag.Int("rounds", 5, "rounds of each tool, in turn")
	repeat := flag.Int("repeat", 0, "instead of all figures: so many default runs, and whether their intervals hold")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := bench{ctx: ctx, rounds: *rounds}
	var err error
	if b.meshbench, err = filepath.Abs(*binary); err == nil {
		b.dir, err = os.MkdirTemp("", "meshbench-bench-")
	}
	if err == nil {
		defer os.RemoveAll(b.dir)
		err = b.all(flag.Args(), *repeat)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.RemoveAll(b.dir)
		os.Exit(1)
	}
}

type bench struct {
	ctx       context.Context
	meshbench string
	dir       string // temporary
	rounds    int
}

func (b *bench) all(parts []string, repeat int) error {
	if repeat > 0 {
		return b.repeat(repeat)
	}
	known := []struct {
		name string
		do   func() error
	}{
		{"start", b.start}, {"generator", b.generator}, {"lateness", b.lateness}, {"oracle", b.oracle}, {"accuracy", b.accuracy}, {"run", b.run},
	}
	for _, k := range known {
		if len(parts) > 0 && !slices.Contains(parts, k.name) {
			continue
		}
		if err := k.do(); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
	}
	return nil
}

func figure(name string, value float64, unit string) {
	fmt.Printf("%-44s %12.4g %s\n", name, value, unit)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// loadDocument is what bench reads of `meshbench load -o json`.
type loadDocument struct {
	Planned   float64 `json:"planned"`
	Completed float64 `json:"completed"`
	Rate      float64 `json:"throughput_rps"`
	State     string  `json:"load_state"`
	Response  latency `json:"response"`
	Service   latency `json:"service"`
	Lateness  latency `json:"lateness"`
	Gaps      struct {
		Share     float64 `json:"share"`
		Predicted latency `json:"predicted_lateness"`
	} `json:"gaps"`
	Generator struct {
		CPU    float64 `json:"cpu_us_per_request"`
		Memory float64 `json:"peak_memory_bytes"`
	} `json:"generator"`
	Verdict struct {
		Status  string `json:"status"`
		Reasons []struct {
			Code string `json:"code"`
		} `json:"reasons"`
	} `json:"verdict"`
}

type latency struct {
	P50  float64 `json:"p50_us"`
	P90  float64 `json:"p90_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p99_9_us"`
	Max  float64 `json:"max_us"`
}

// load runs `meshbench load`; an invalid verdict is a finding, not an error.
func (b *bench) load(args ...string) (loadDocument, error) {
	var doc loadDocument
	cmd := exec.CommandContext(b.ctx, b.meshbench, append([]string{"load", "-q", "-o", "json", "--data-dir", b.dir}, args...)...)
	out, err := cmd.Output()
	if jsonErr := json.Unmarshal(out, &doc); jsonErr != nil {
		return doc, fmt.Errorf("%s: %v (%s)", strings.Join(args, " "), err, out)
	}
	return doc, nil
}

// cpu returns the user and system time that an ended process has used.
func cpu(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// start measures how long the program takes to say its version.
func (b *bench) start() error {
	var times []float64
	for range 21 {
		begin := time.Now()
		if err := exec.CommandContext(b.ctx, b.meshbench, "--version").Run(); err != nil {
			return err
		}
		times = append(times, float64(time.Since(begin).Microseconds())/1000)
	}
	figure("start_time_median", median(times), "ms (limit 50)")
	return nil
}
