package analysis_test

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/analysis"
	"github.com/meshbench/meshbench/internal/stats"
)

// The simulated trial: as many requests as the default run has.
const (
	simulatedRequests = 2000
	simulatedBatches  = 40
)

// latencies fills v with what a trial at a level (in us) would show: skewed
// (lognormal), each request alike to the one before it (a first-order
// autoregression of 0.6), and gapped: now and then the machine is absent for
// 5 us to 2.5 ms and delays the requests of that time together.
func latencies(rng *rand.Rand, v []float64, level float64) {
	const alike = 0.6
	z, gap := rng.NormFloat64(), 0.0
	fresh := math.Sqrt(1 - alike*alike)
	for i := range v {
		z = alike*z + fresh*rng.NormFloat64()
		if gap -= 800; gap < 0 {
			gap = 0
		}
		if rng.Float64() < 0.01 {
			gap += 5 * math.Pow(500, rng.Float64())
		}
		v[i] = level*math.Exp(0.35*z) + gap
	}
}

// sittingEffect is what the start of a deployment changes: skewed, with a
// standard deviation of about 6 %.
func sittingEffect(rng *rand.Rand) float64 { return 0.94 + 0.06*rng.ExpFloat64() }

// simulate makes a run of the same subject twice.
func simulate(seed uint64, plan meshbench.Plan) []meshbench.Trial {
	rng := rand.New(rand.NewPCG(seed, 11))
	v, sorted := make([]float64, simulatedRequests), make([]float64, simulatedRequests)
	var trials []meshbench.Trial
	for s := range plan.Sittings {
		levels := []float64{150 * sittingEffect(rng), 150 * sittingEffect(rng)}
		for b := range plan.Blocks {
			for i, cell := range plan.Cells {
				latencies(rng, v, levels[i])
				copy(sorted, v)
				slices.Sort(sorted)
				l := meshbench.LoadResult{Planned: simulatedRequests, Completed: simulatedRequests, LoadState: meshbench.Kept}
				l.Response.Values = map[meshbench.Quantile]meshbench.Microseconds{}
				for _, q := range meshbench.Quantiles {
					l.Response.Values[q] = meshbench.Microseconds(stats.Quantile(sorted, q.Probability()))
				}
				const size = simulatedRequests / simulatedBatches
				for k := 0; k < len(v); k += size {
					above := map[meshbench.Quantile]uint32{}
					for _, q := range []meshbench.Quantile{meshbench.P50, meshbench.P90, meshbench.P99} {
						limit, n := float64(l.Response.Values[q]), uint32(0)
						for _, x := range v[k : k+size] {
							if x > limit {
								n++
							}
						}
						above[q] = n
					}
					l.Batches = append(l.Batches, meshbench.Batch{Count: size, Above: above})
				}
				trials = append(trials, meshbench.Trial{Cell: cell.ID, Sitting: s + 1, Block: b + 1, Order: i + 1, Load: l,
					Verdict: meshbench.Verdict{Status: meshbench.Valid}})
			}
		}
	}
	return trials
}

// slower adds a time to every latency of the second subject, by which each of
// its quantiles grows.
func slower(trials []meshbench.Trial, plan meshbench.Plan, shift meshbench.Microseconds) {
	for _, t := range trials {
		if t.Cell == plan.Cells[1].ID {
			for q := range t.Load.Response.Values {
				t.Load.Response.Values[q] += shift
			}
		}
	}
}

// results analyses n simulated runs, on every core, once after each of the
// changes made to its trials.
func results(n int, plan meshbench.Plan, changes ...func([]meshbench.Trial)) [][]meshbench.Result {
	out := make([][]meshbench.Result, len(changes))
	for i := range out {
		out[i] = make([]meshbench.Result, n)
	}
	var wait sync.WaitGroup
	cores := runtime.GOMAXPROCS(0)
	for w := range cores {
		wait.Go(func() {
			for i := w; i < n; i += cores {
				trials := simulate(uint64(i), plan)
				for k, change := range changes {
					change(trials)
					r := analysis.Analyse(meshbench.Run{Plan: plan, Experiment: experiment(), State: meshbench.Finished}, trials)
					out[k][i] = meshbench.Result{Comparisons: r.Comparisons} // all that is looked at
				}
			}
		})
	}
	wait.Wait()
	return out
}

func simulatedPlan(t *testing.T, sittings, blocks int) meshbench.Plan {
	t.Helper()
	exp := experiment()
	exp.Sittings, exp.Blocks, exp.Force, exp.MaxTime = sittings, blocks, true, 0
	plan, err := analysis.NewPlan(exp, cells(500, "none#2"), true)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// share is the share of comparisons of a metric (any, if empty) of which
// something holds.
func share(all []meshbench.Result, metric string, holds func(c meshbench.Comparison) bool) float64 {
	n, yes := 0, 0
	for _, r := range all {
		for _, c := range r.Comparisons {
			if metric == "" || c.Metric == metric {
				n++
				if holds(c) {
					yes++
				}
			}
		}
	}
	return float64(yes) / float64(n)
}

var comparedMetrics = []string{"response.p50", "response.p90", "response.p99"}

// TestCalibration runs the whole way from latencies to decisions on data that
// are anything but Gaussian and independent, without a difference and with a
// known one: the method must be wrong as rarely as it says.
func TestCalibration(t *testing.T) {
	const (
		runs  = 1000
		shift = 40.0 // us
	)
	plan := simulatedPlan(t, 7, 1)
	all := results(runs, plan, func([]meshbench.Trial) {}, func(trials []meshbench.Trial) { slower(trials, plan, shift) })
	same, shifted := all[0], all[1]

	carried := share(same, "", func(c meshbench.Comparison) bool { return c.N == 7 && !math.IsNaN(c.Difference.Estimate) })
	if carried < 0.99 {
		t.Fatalf("only %.1f %% of the comparisons have a figure", 100*carried)
	}
	level, _ := stats.NewSignedRank(7).Level(0.95)
	inside := func(low, high float64) bool { return low <= shift && shift <= high }
	for _, metric := range comparedMetrics {
		found := share(same, metric, func(c meshbench.Comparison) bool { return c.P <= 0.05 })
		if math.Abs(found-(1-level)) > 0.014 {
			t.Errorf("%s: unadjusted, %.1f %% of A/A runs are significant, the level says %.1f %%", metric, 100*found, 100*(1-level))
		}
		shown := share(shifted, metric, func(c meshbench.Comparison) bool {
			return c.Difference.Low != nil && inside(*c.Difference.Low, *c.Difference.High)
		})
		if math.Abs(shown-plan.Level) > 0.02 {
			t.Errorf("%s: the interval shown covers the true shift in %.1f %%, its level is %.1f %%", metric, 100*shown, 100*plan.Level)
		}
		alone := share(shifted, metric, func(c meshbench.Comparison) bool {
			in := stats.SignedRankInterval(values(c), 0.95)
			return inside(in.Low, in.High)
		})
		if math.Abs(alone-level) > 0.02 {
			t.Errorf("%s: the 95 %% interval covers the true shift in %.1f %%, its level is %.1f %%", metric, 100*alone, 100*level)
		}
		t.Logf("%s: A/A unadjusted %.1f %% (level %.1f %%), covered %.1f %% (%.1f %%), at 95 %%: %.1f %% (%.1f %%)",
			metric, 100*found, 100*(1-level), 100*shown, 100*plan.Level, 100*alone, 100*level)
	}

	families, decided := 0, 0
	for _, r := range same {
		if slices.ContainsFunc(r.Comparisons, func(c meshbench.Comparison) bool { return c.PAdjusted <= 0.05 }) {
			families++
		}
		if slices.ContainsFunc(r.Comparisons, func(c meshbench.Comparison) bool {
			return c.Significance == meshbench.Worse || c.Significance == meshbench.Better
		}) {
			decided++
		}
	}
	if rate := float64(families) / runs; rate > 0.064 {
		t.Errorf("%.1f %% of A/A runs have a significant comparison", 100*rate)
	}
	if families == 0 || decided > families {
		t.Errorf("%d runs decide, %d have a significant p", decided, families)
	}
	t.Logf("families: %.1f %%", 100*float64(families)/runs)
}

// TestBlocksAreNotIndependent shows that the checks above can fail: the same
// data with the blocks of a sitting taken for sittings finds differences where
// there are none.
func TestBlocksAreNotIndependent(t *testing.T) {
	const runs, sittings, blocks = 150, 4, 3
	plan := simulatedPlan(t, sittings, blocks)
	wrong := results(runs, plan, func(trials []meshbench.Trial) {
		for i := range trials {
			trials[i].Sitting, trials[i].Block = (trials[i].Sitting-1)*blocks+trials[i].Block, 1
		}
	})[0]
	level, _ := stats.NewSignedRank(sittings * blocks).Level(0.95)
	rate := share(wrong, "response.p50", func(c meshbench.Comparison) bool { return c.P <= 0.05 })
	if rate < 1-level+0.05 {
		t.Errorf("blocks taken for sittings: %.1f %% significant; the simulation has no sitting effect to detect", 100*rate)
	}
	t.Logf("blocks taken for sittings: %.1f %% significant at a nominal %.1f %%", 100*rate, 100*(1-level))
}

func values(c meshbench.Comparison) []float64 {
	out := make([]float64, len(c.Differences))
	for i, d := range c.Differences {
		out[i] = d.Value
	}
	return out
}
