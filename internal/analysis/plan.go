package analysis

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/stats"
)

// familyAlpha is the probability of at least one false finding in a run in
// which no subject differs from its baseline.
const familyAlpha = 0.05

// plannedDesignEffect is what a plan assumes before anything was measured:
// requests that queue behind each other are not quite independent. A quantile
// is asked for where a trial carries it up to this design effect.
const plannedDesignEffect = 1.25

// What a run spends outside its trials, for the estimate of its length.
const (
	perTrial  = 600 * time.Millisecond // calibration, draining, counters
	perDeploy = 2 * time.Second        // start, readiness and end of one subject
	perNode   = 500 * time.Millisecond // of it, of each further application with its proxy: they start one after the other
)

// Codes of a plan's warnings.
const (
	WarnQuantileNotCarried = "quantile_not_carried"      // rate x trial cannot carry it; the message names the --trial that would
	WarnMaxTime            = "max_time_shortens"         // fewer sittings than asked for
	WarnNoSignificance     = "significance_out_of_reach" // forced: too few sittings for any decision
	WarnClosedLoop         = "closed_loop"               // latencies are not comparable with an open loop's
	WarnFailOn             = "fail_on_not_answered"      // a condition that this plan cannot decide
)

// NewPlan fixes what a run will do before it starts. deploys tells whether
// the infrastructure deploys subjects; where it does not, each block is a
// sitting of its own. The seed is kept as it is.
//
// The family size is the number of quantiles asked for over all comparisons;
// the level is the attained one of an interval at 1 - 0.05/m with the planned
// number of sittings (0 where there can be none). An error of code invalid
// says why there is no plan: too few sittings for any comparison to be
// significant (unless exp.Force), too little time for one sitting, a
// condition that cannot be read.
func NewPlan(exp meshbench.Experiment, cells []meshbench.Cell, deploys bool) (meshbench.Plan, error) {
	plan := meshbench.Plan{Cells: cells, Sittings: max(exp.Sittings, 1), Blocks: max(exp.Blocks, 1), Seed: exp.Seed, Warnings: []meshbench.Warning{}}
	if len(cells) == 0 {
		return plan, meshbench.Errorf(meshbench.Invalid, "there is nothing to measure: no cell").WithHint("name a subject: --subjects none,envoy")
	}
	if !deploys {
		plan.Sittings, plan.Blocks = plan.Sittings*plan.Blocks, 1
	}
	conditions := make([]FailOn, 0, len(exp.FailOn))
	for _, text := range exp.FailOn {
		f, err := ParseFailOn(text)
		if err != nil {
			return plan, err
		}
		conditions = append(conditions, f)
	}
	for _, c := range cells {
		if c.Baseline != "" {
			plan.FamilySize += len(asked(c.Load))
		}
	}

	cost := sittingCost(cells, plan.Blocks, deploys)
	wanted := plan.Sittings
	if limit := exp.MaxTime.Std(); limit > 0 && time.Duration(plan.Sittings)*cost > limit {
		plan.Sittings = int(limit / cost)
		if plan.Sittings == 0 {
			return plan, meshbench.Errorf(meshbench.Invalid, "max_time %s is less than one sitting of %d cells takes (about %s)", exp.MaxTime, len(cells), short(cost)).
				WithHint("give --max-time %s, a shorter --trial, or fewer cells", roundUp(cost))
		}
		plan.Warnings = append(plan.Warnings, warning(WarnMaxTime, "max_time %s has room for %d of the %d sittings asked for (about %s each)", exp.MaxTime, plan.Sittings, wanted, short(cost)))
	}

	if m := plan.FamilySize; m > 0 {
		need := stats.DifferencesNeeded(m, familyAlpha)
		if plan.Sittings < need {
			why := fmt.Sprintf("%d sittings cannot decide %d comparisons: the smallest possible p, adjusted, is %.2g", plan.Sittings, m, stats.Bonferroni(stats.SmallestP(plan.Sittings), m))
			if !exp.Force {
				err := meshbench.Errorf(meshbench.Invalid, "%s", why)
				if wanted >= need {
					return plan, err.WithHint("%d sittings are needed: give --max-time %s, or --force to run without intervals", need, roundUp(time.Duration(need)*cost))
				}
				return plan, err.WithHint("%d sittings are needed: --sittings %d (about %s), or --force to run without intervals", need, need, short(time.Duration(need)*cost))
			}
			plan.Warnings = append(plan.Warnings, warning(WarnNoSignificance, "%s; %d sittings would", why, need))
		}
		plan.Level, _ = stats.NewSignedRank(plan.Sittings).Level(1 - familyAlpha/float64(m))
	}

	plan.TrialsTotal = plan.Sittings * plan.Blocks * len(cells)
	plan.Estimate = meshbench.Duration(time.Duration(plan.Sittings) * cost)
	for _, c := range cells {
		plan.InTrials += c.Load.Trial * meshbench.Duration(plan.Sittings*plan.Blocks)
	}
	plan.Warnings = append(plan.Warnings, loadWarnings(cells, conditions)...)
	return plan, nil
}

// loadWarnings says which quantiles and conditions a plan cannot answer.
func loadWarnings(cells []meshbench.Cell, conditions []FailOn) []meshbench.Warning {
	var out []meshbench.Warning
	said := map[string]bool{}
	warn := func(code, format string, args ...any) {
		w := warning(code, format, args...)
		if !said[w.Message] {
			said[w.Message] = true
			out = append(out, w)
		}
	}
	for _, c := range cells {
		l := c.Load
		if l.Rate.IsMax() {
			warn(WarnClosedLoop, "at --rate max the answers set the pace (closed loop): latencies are not comparable with those of an open loop")
			continue
		}
		carried := asked(l)
		for _, q := range meshbench.Quantiles[len(carried):] {
			size := float64(l.Rate) * l.Trial.Std().Seconds() / plannedDesignEffect
			warn(WarnQuantileNotCarried, "%s requests/s x %s cannot carry %s: it would need --trial %s",
				l.Rate, l.Trial, q.Label(), trialFor(l.Trial.Std(), size, stats.RequiredSize(q.Probability())))
		}
		for _, f := range conditions {
			name, ok := strings.CutPrefix(f.Metric, "response.")
			if ok && !slices.Contains(carried, meshbench.Quantile(name)) {
				warn(WarnFailOn, "fail-on %q cannot be decided: no trial of this plan carries %s", f, meshbench.Quantile(name).Label())
			}
		}
	}
	return out
}

func warning(code, format string, args ...any) meshbench.Warning {
	return meshbench.Warning{Code: code, Message: fmt.Sprintf(format, args...)}
}

// asked returns the quantiles that a plan compares for a load: p50, p90, p99
// and p99.9 as far as rate x trial carries them. In closed loop the number of
// requests is not known beforehand: p50, p90 and p99.
func asked(l meshbench.Load) []meshbench.Quantile {
	if l.Rate.IsMax() {
		return []meshbench.Quantile{meshbench.P50, meshbench.P90, meshbench.P99}
	}
	var out []meshbench.Quantile
	for _, q := range meshbench.Quantiles {
		if float64(l.Rate)*l.Trial.Std().Seconds() >= plannedDesignEffect*stats.RequiredSize(q.Probability()) {
			out = append(out, q)
		}
	}
	return out
}

// trialFor returns the trial that gives an effective size where one of length
// trial gave size, rounded up to a length that people would write.
func trialFor(trial time.Duration, size, needed float64) meshbench.Duration {
	if !(size > 0) || trial <= 0 {
		return 0
	}
	return roundUp(time.Duration(math.Ceil(float64(trial) * needed / size)))
}

// roundUp rounds a duration up to one or two leading digits of seconds or
// minutes.
func roundUp(d time.Duration) meshbench.Duration {
	step := 100 * time.Millisecond
	switch {
	case d > 10*time.Minute:
		step = time.Minute
	case d > time.Minute:
		step = 10 * time.Second
	case d > 20*time.Second:
		step = 5 * time.Second
	case d > 2*time.Second:
		step = time.Second
	}
	return meshbench.Duration((d + step - 1) / step * step)
}

func short(d time.Duration) string {
	if d >= 10*time.Second {
		return meshbench.Duration(d.Round(time.Second)).String()
	}
	return meshbench.Duration(d.Round(100 * time.Millisecond)).String()
}

// sittingCost estimates how long one sitting takes.
func sittingCost(cells []meshbench.Cell, blocks int, deploys bool) time.Duration {
	type deployment struct {
		subject  string
		profile  meshbench.Profile
		protocol meshbench.Protocol
		topology string
		response meshbench.Response
	}
	up := map[deployment]time.Duration{}
	var cost time.Duration
	for _, c := range cells {
		instances := 0
		for _, n := range c.Workload.Topology.Nodes() {
			instances += n.Instances
		}
		key := deployment{c.Subject.ID, c.Profile, c.Workload.Protocol, c.Workload.Topology.String(), c.Workload.Response}
		up[key] = perDeploy + time.Duration(instances-1)*perNode
		cost += c.Load.Warmup.Std() + time.Duration(blocks)*(c.Load.Settle.Std()+c.Load.Trial.Std()+perTrial)
	}
	if deploys {
		for _, takes := range up {
			cost += takes
		}
	}
	return cost
}

// Orders returns for each sitting and block the ids of the cells in the order
// in which to measure them: a fresh random permutation each, drawn from the
// plan's seed. A plan with more sittings begins with the same orders.
func Orders(plan meshbench.Plan) [][][]string {
	// A generator and a shuffle that are spelled out here: a recorded seed
	// means the same orders with every version of the standard library.
	source := rand.NewPCG(plan.Seed, 0x6d657368_62656e63)
	out := make([][][]string, plan.Sittings)
	for s := range out {
		out[s] = make([][]string, plan.Blocks)
		for b := range out[s] {
			ids := make([]string, len(plan.Cells))
			for i, c := range plan.Cells {
				ids[i] = c.ID
			}
			for i := len(ids) - 1; i > 0; i-- {
				j := below(source, uint64(i+1))
				ids[i], ids[j] = ids[j], ids[i]
			}
			out[s][b] = ids
		}
	}
	return out
}

// below draws from 0..n-1 without bias.
func below(source *rand.PCG, n uint64) uint64 {
	limit := math.MaxUint64 - math.MaxUint64%n
	for {
		if v := source.Uint64(); v < limit {
			return v % n
		}
	}
}
