package analysis_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/analysis"
)

func TestDefaultPlan(t *testing.T) {
	plan, err := analysis.NewPlan(experiment(), cells(500, "envoy"), true)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Sittings != 10 || plan.Blocks != 1 || plan.FamilySize != 3 || plan.TrialsTotal != 20 || plan.Seed != 7 {
		t.Errorf("%+v", plan)
	}
	// n = 10: P(W <= 6) = 14/1024 is the last below 0.05/3/2.
	if want := 1 - 14.0/1024; plan.Level != want {
		t.Errorf("level %v, want %v", plan.Level, want)
	}
	if got := plan.InTrials.Std(); got != 80*time.Second {
		t.Errorf("in trials: %v", got)
	}
	if got, want := plan.Estimate.Std(), 182*time.Second; got != want {
		t.Errorf("estimate %v, want %v", got, want)
	}
	if len(plan.Warnings) != 1 || plan.Warnings[0].Code != analysis.WarnQuantileNotCarried ||
		!strings.Contains(plan.Warnings[0].Message, "p99.9") || !strings.Contains(plan.Warnings[0].Message, "--trial 10s") {
		t.Errorf("warnings %v", plan.Warnings)
	}
}

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(e *meshbench.Experiment, c []meshbench.Cell)
		rate     meshbench.Rate
		deploys  bool
		others   []string
		family   int
		sittings int
		blocks   int
		warnings []string
	}{
		{name: "one subject alone", rate: 500, deploys: true, sittings: 10, blocks: 1, warnings: []string{analysis.WarnQuantileNotCarried}},
		{name: "p99.9 is carried", rate: 2000, deploys: true, others: []string{"envoy"}, family: 4, sittings: 10, blocks: 1},
		{name: "p99 is not carried", rate: 100, deploys: true, others: []string{"envoy"}, family: 2, sittings: 10, blocks: 1,
			warnings: []string{analysis.WarnQuantileNotCarried, analysis.WarnQuantileNotCarried}},
		{name: "closed loop", rate: meshbench.RateMax, deploys: true, others: []string{"envoy"}, family: 3, sittings: 10, blocks: 1,
			warnings: []string{analysis.WarnClosedLoop}},
		{name: "nothing is deployed: a block is a sitting", rate: 2000, others: []string{"envoy"}, family: 4, sittings: 20, blocks: 1,
			change: func(e *meshbench.Experiment, _ []meshbench.Cell) { e.Blocks = 2 }},
		{name: "max_time wins", rate: 2000, deploys: true, others: []string{"envoy"}, family: 4, sittings: 8, blocks: 1,
			change:   func(e *meshbench.Experiment, _ []meshbench.Cell) { e.MaxTime = meshbench.Duration(150 * time.Second) },
			warnings: []string{analysis.WarnMaxTime}},
		{name: "no limit", rate: 2000, deploys: true, others: []string{"envoy"}, family: 4, sittings: 10, blocks: 1,
			change: func(e *meshbench.Experiment, _ []meshbench.Cell) { e.MaxTime = 0 }},
		{name: "forced", rate: 2000, deploys: true, others: []string{"envoy"}, family: 4, sittings: 3, blocks: 1,
			change:   func(e *meshbench.Experiment, _ []meshbench.Cell) { e.Sittings, e.Force = 3, true },
			warnings: []string{analysis.WarnNoSignificance}},
		{name: "a condition beyond the plan", rate: 500, deploys: true, others: []string{"envoy"}, family: 3, sittings: 10, blocks: 1,
			change:   func(e *meshbench.Experiment, _ []meshbench.Cell) { e.FailOn = []string{"response.p99.9>+5%"} },
			warnings: []string{analysis.WarnQuantileNotCarried, analysis.WarnFailOn}},
	} {
		t.Run(c.name, func(t *testing.T) {
			exp, list := experiment(), cells(c.rate, c.others...)
			if c.change != nil {
				c.change(&exp, list)
			}
			plan, err := analysis.NewPlan(exp, list, c.deploys)
			if err != nil {
				t.Fatal(err)
			}
			if plan.FamilySize != c.family || plan.Sittings != c.sittings || plan.Blocks != c.blocks {
				t.Errorf("family %d, sittings %d x %d; want %d, %d x %d", plan.FamilySize, plan.Sittings, plan.Blocks, c.family, c.sittings, c.blocks)
			}
			var codes []string
			for _, w := range plan.Warnings {
				codes = append(codes, w.Code)
			}
			if !slices.Equal(codes, c.warnings) {
				t.Errorf("warnings %v, want %v", plan.Warnings, c.warnings)
			}
			forced := slices.Contains(c.warnings, analysis.WarnNoSignificance)
			if want := c.family > 0 && !forced; (plan.Level > 0.95) != want {
				t.Errorf("level %v", plan.Level)
			}
		})
	}
}

func TestPlanRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(e *meshbench.Experiment)
		hint   string
	}{
		{"too few sittings", func(e *meshbench.Experiment) { e.Sittings = 6 }, "--sittings 7"},
		{"too little time for enough", func(e *meshbench.Experiment) { e.MaxTime = meshbench.Duration(time.Minute) }, "--max-time 2m10s"},
		{"too little time for one", func(e *meshbench.Experiment) { e.MaxTime = meshbench.Duration(time.Second) }, "--max-time 19s"},
		{"too little time for one, forced", func(e *meshbench.Experiment) { e.MaxTime, e.Force = meshbench.Duration(time.Second), true }, "--max-time 19s"},
		{"a condition that means nothing", func(e *meshbench.Experiment) { e.FailOn = []string{"speed>9000"} }, "for example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			exp := experiment()
			c.change(&exp)
			_, err := analysis.NewPlan(exp, cells(500, "envoy"), true)
			if err == nil {
				t.Fatal("accepted")
			}
			if e := meshbench.AsError(err); e.Code != meshbench.Invalid || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("%s: %s (hint: %s)", e.Code, e.Message, e.Hint)
			}
		})
	}
	if _, err := analysis.NewPlan(experiment(), nil, true); err == nil {
		t.Error("a plan without cells is accepted")
	}
}

func TestOrders(t *testing.T) {
	plan := meshbench.Plan{Cells: cells(500, "envoy", "envoy@1.39"), Sittings: 600, Blocks: 2, Seed: 42}
	orders := analysis.Orders(plan)
	if len(orders) != 600 {
		t.Fatalf("%d sittings", len(orders))
	}
	seen := map[string]int{}
	for _, blocks := range orders {
		if len(blocks) != 2 {
			t.Fatalf("%d blocks", len(blocks))
		}
		for _, o := range blocks {
			seen[strings.Join(o, " ")]++
			if got := slices.Sorted(slices.Values(o)); !slices.Equal(got, []string{"envoy", "envoy@1.39", "none"}) {
				t.Fatalf("order %v", o)
			}
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d of 6 orders: %v", len(seen), slices.Collect(maps.Keys(seen)))
	}
	for o, n := range seen { // 200 each are expected, with a standard deviation of 13
		if math.Abs(float64(n)-200) > 60 {
			t.Errorf("%s: %d times", o, n)
		}
	}
	fewer := plan
	fewer.Sittings = 3
	if got, want := fmt.Sprint(analysis.Orders(fewer)), fmt.Sprint(orders[:3]); got != want {
		t.Errorf("fewer sittings begin with %s, want %s", got, want)
	}
	other := fewer
	other.Seed++
	if fmt.Sprint(analysis.Orders(other)) == fmt.Sprint(orders[:3]) {
		t.Error("another seed gives the same orders")
	}
	// Recorded seeds must mean the same for ever.
	if got, want := fmt.Sprint(orders[0], orders[1]), "[[envoy none envoy@1.39] [envoy envoy@1.39 none]] [[envoy envoy@1.39 none] [none envoy@1.39 envoy]]"; got != want {
		t.Errorf("orders of seed 42: %s, want %s", got, want)
	}
}
