package analysis_test

import (
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/analysis"
)

func TestHeadline(t *testing.T) {
	quiet := subject{base: 160, spread: 0.5}
	for _, c := range []struct {
		name string
		make func(w *world)
		ends func(run *meshbench.Run, trials []meshbench.Trial) []meshbench.Trial
		want string
	}{
		{"usual", nil, nil,
			"At 500 requests/s, envoy adds 341 µs [327, 354] to the median and 724 µs [695, 752] to p99 of none, and costs 425 CPU-ms per 1,000 requests and 81 MB of memory."},
		{"a better subject", func(w *world) { w.subjects = map[string]subject{"none": proxySubject, "envoy": plainSubject} }, nil,
			"At 500 requests/s, envoy takes 345 µs [331, 352] off the median and 732 µs [703, 746] off p99 of none, and saves 425 CPU-ms per 1,000 requests and 81 MB of memory."},
		{"several subjects", func(w *world) {
			w.cells = cells(500, "envoy@1.39", "envoy@1.40")
			w.subjects["envoy@1.39"], w.subjects["envoy@1.40"] = proxySubject, subject{base: 170, spread: 60}
		}, nil,
			"At 500 requests/s, envoy@1.39 adds 342 µs [332, 353] to the median and 725 µs [704, 749] to p99 of none, and costs 425 CPU-ms per 1,000 requests and 81 MB of memory; envoy@1.40 is not decided against none at the median (could be up to ±91 µs) nor at p99 (could be up to ±193 µs), and saves 22 CPU-ms per 1,000 requests and 9.0 MB of memory."},
		{"A/A", func(w *world) {
			w.cells = cells(500, "none#2")
			w.subjects = map[string]subject{"none": quiet, "none#2": quiet}
		}, nil,
			"At 500 requests/s, none#2, the same as none, shows no difference from none larger than 2.1 µs at the median or 4.5 µs at p99."},
		{"not decided", func(w *world) {
			w.subjects = map[string]subject{"none": quiet, "envoy": {base: 165, spread: 40}}
		}, nil,
			"At 500 requests/s, envoy is not decided against none at the median (could be up to ±55 µs) nor at p99 (could be up to ±116 µs)."},
		{"two rates", func(w *world) {
			w.cells = cells(200, "envoy")
			for _, x := range cells(1500, "envoy") {
				x.ID += "/rate=1500"
				if x.Baseline != "" {
					x.Baseline += "/rate=1500"
				}
				w.cells = append(w.cells, x)
			}
			w.subjects["none/rate=1500"], w.subjects["envoy/rate=1500"] = plainSubject, proxySubject
		}, nil,
			"At 200 requests/s, envoy adds 344 µs [330, 356] to the median and 729 µs [701, 755] to p99 of none, and costs 425 CPU-ms per 1,000 requests and 81 MB of memory; at 1,500 requests/s, envoy adds 342 µs [329, 354] to the median and 725 µs [699, 751] to p99 of none, and costs 425 CPU-ms per 1,000 requests and 81 MB of memory."},
		{"another axis", func(w *world) {
			for i := range w.cells {
				w.cells[i].Axes["connections"] = 8
			}
		}, nil,
			"At 500 requests/s, envoy (connections=8) adds 341 µs [327, 354] to the median and 724 µs [695, 752] to p99 of none (connections=8), and costs 425 CPU-ms per 1,000 requests and 81 MB of memory."},
		{"one subject", func(w *world) { w.cells = cells(500) }, nil,
			"At 500 requests/s, none answers in 160 µs at the median and 339 µs at p99."},
		{"closed loop", func(w *world) {
			w.cells = cells(meshbench.RateMax, "envoy")
			w.change = func(t *meshbench.Trial) {
				t.Load.LoadState, t.Load.ThroughputRPS = meshbench.ClosedLoop, 48123
				if t.Cell == "envoy" {
					t.Load.ThroughputRPS = 1520
				}
			}
		}, nil,
			"In closed loop over 32 connections, envoy answers 1,520 requests/s where none answers 48,123 requests/s, adds 341 µs [327, 354] to the median and 724 µs [695, 752] to p99 of none, and costs 425 CPU-ms per 1,000 requests and 81 MB of memory."},
		{"endpoints", func(w *world) {
			w.cells = cells(500, "next")
			for i := range w.cells {
				w.cells[i].Subject = meshbench.Subject{ID: w.cells[i].ID, Mesh: "endpoint"}
				w.cells[i].URL = "http://127.0.0.1/" + w.cells[i].ID
			}
			w.subjects = map[string]subject{"none": quiet, "next": {base: 250, spread: 1}}
		}, nil,
			"At 500 requests/s, next adds 90.0 µs [87.6, 92.6] to the median and 191 µs [186, 197] to p99 of none."},
		{"saturated", func(w *world) {
			w.change = func(t *meshbench.Trial) {
				if t.Cell == "envoy" {
					t.Load.LoadState, t.Load.ThroughputRPS = meshbench.Saturated, 371
				}
			}
		}, nil,
			"At 500 requests/s, envoy saturates at 371 requests/s, so its latencies are not compared."},
		{"saturated baseline", func(w *world) {
			w.change = func(t *meshbench.Trial) {
				if t.Cell == "none" {
					t.Load.LoadState, t.Load.ThroughputRPS = meshbench.Saturated, 371
				}
			}
		}, nil,
			"At 500 requests/s, none, the baseline, saturates at 371 requests/s, so envoy is not compared with it."},
		{"errors", func(w *world) {
			w.change = func(t *meshbench.Trial) {
				if t.Cell == "envoy" {
					t.Load.Completed, t.Load.Errored, t.Load.Errors = 1950, 50, map[string]uint64{"status_503": 50}
				}
			}
		}, nil,
			"At 500 requests/s, envoy adds 341 µs [327, 354] to the median and 724 µs [695, 752] to p99 of none, and costs 425 CPU-ms per 1,000 requests and 81 MB of memory; 2.5 % of envoy's requests failed."},
		{"nothing completed", func(w *world) {
			w.change = func(t *meshbench.Trial) {
				t.Load.Completed, t.Load.Errored, t.Load.Errors = 0, 2000, map[string]uint64{"connect": 2000}
				t.Load.Response = meshbench.Latency{}
			}
		}, nil,
			"No request was completed: 20,000 requests of none failed (connect)."},
		{"one subject completed nothing", func(w *world) {
			w.change = func(t *meshbench.Trial) {
				if t.Cell == "envoy" {
					t.Load.Completed, t.Load.Errored, t.Load.Errors = 0, 2000, map[string]uint64{"connect": 2000}
					t.Load.Response = meshbench.Latency{}
				}
			}
		}, nil,
			"At 500 requests/s, envoy completed no request, so its latencies are not compared."},
		{"interrupted", nil, func(run *meshbench.Run, trials []meshbench.Trial) []meshbench.Trial {
			run.State = meshbench.Interrupted
			return trials[:6]
		},
			"Interrupted in sitting 3 of 10: at 500 requests/s, envoy is not decided against none at the median (about +331 µs in 3 sittings) nor at p99 (about +703 µs in 3 sittings), and costs 425 CPU-ms per 1,000 requests and 81 MB of memory."},
		{"failed", nil, func(run *meshbench.Run, _ []meshbench.Trial) []meshbench.Trial {
			run.State, run.Error = meshbench.Failed, meshbench.Errorf(meshbench.Unavailable, "envoy could not be had: no network.")
			return nil
		},
			"Nothing was measured: envoy could not be had: no network."},
		{"invalid", func(w *world) {
			w.change = func(t *meshbench.Trial) {
				if t.Sitting > 6 {
					invalidate(t)
				}
			}
		}, nil,
			"This run is invalid: 4 of 10 blocks stayed out, each for an invalid trial: generator_busy in 4."},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := usual(t)
			if c.make != nil {
				c.make(&w)
			}
			run, trials := w.run()
			if c.ends != nil {
				trials = c.ends(&run, trials)
			}
			if got := analysis.Analyse(run, trials).Headline; got != c.want {
				t.Errorf("%s", got)
			}
		})
	}
}
