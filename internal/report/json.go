package report

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"slices"

	"github.com/meshbench/meshbench"
)

// JSON writes r as one document: the contract of `run -o json`, described
// in docs/result.md. Lists and maps are never null. Nothing is written where
// r cannot be encoded (code internal).
func JSON(w io.Writer, r meshbench.Result) error {
	return writeJSON(w, complete(r), "  ")
}

// LoadJSON writes r as one document: the contract of `load -o json`.
func LoadJSON(w io.Writer, r meshbench.LoadResult) error {
	return writeJSON(w, loadDocument{SchemaVersion: meshbench.SchemaVersion, LoadResult: completeLoad(r)}, "  ")
}

// NDJSON writes one trial per line, as the store keeps them, and the result
// on the last. Each line tells by kind ("trial", "result") what it is.
func NDJSON(w io.Writer, r meshbench.Result, trials []meshbench.Trial) error {
	for _, t := range trials {
		t.Load = completeLoad(t.Load)
		t.Usage, t.Settings, t.Verdict = list(t.Usage), list(t.Settings), completeVerdict(t.Verdict)
		line := trialLine{SchemaVersion: meshbench.SchemaVersion, Kind: "trial", Trial: t}
		if err := writeJSON(w, line, ""); err != nil {
			return err
		}
	}
	return writeJSON(w, resultLine{Kind: "result", Result: complete(r)}, "")
}

type loadDocument struct {
	SchemaVersion int `json:"schema_version"`
	meshbench.LoadResult
}

type trialLine struct {
	SchemaVersion int    `json:"schema_version"`
	Kind          string `json:"kind"`
	meshbench.Trial
}

type resultLine struct {
	Kind string `json:"kind"`
	meshbench.Result
}

func writeJSON(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return meshbench.Errorf(meshbench.Internal, "encode the result: %w", err).
			WithHint("a figure is not a number; please report this with the run's id")
	}
	_, err := w.Write(b.Bytes())
	return err
}

// list returns s, or an empty list for none at all: readers of JSON iterate
// without asking first.
func list[S ~[]E, E any](s S) S {
	if s == nil {
		return S{}
	}
	return s
}

func mapping[M ~map[K]V, K comparable, V any](m M) M {
	if m == nil {
		return M{}
	}
	return m
}

func completeVerdict(v meshbench.Verdict) meshbench.Verdict {
	v.Reasons = list(v.Reasons)
	return v
}

func completeLoad(r meshbench.LoadResult) meshbench.LoadResult {
	r.Errors = mapping(r.Errors)
	r.Verdict = completeVerdict(r.Verdict)
	return r
}

func completeCell(c meshbench.Cell) meshbench.Cell {
	c.Axes = maps.Clone(mapping(c.Axes))
	if _, ok := c.Axes["rate_rps"]; !ok {
		c.Axes["rate_rps"] = nil
		if !c.Load.Rate.IsMax() {
			c.Axes["rate_rps"] = float64(c.Load.Rate)
		}
	}
	c.Workload.Assertions = list(c.Workload.Assertions)
	return c
}

// complete returns r with every list and map made, so that an interrupted
// run has the same keys and shapes as a finished one. r itself stays as it is.
func complete(r meshbench.Result) meshbench.Result {
	r.SchemaVersion = meshbench.SchemaVersion
	r.Experiment.Subjects = list(r.Experiment.Subjects)
	r.Experiment.Workload.Assertions = list(r.Experiment.Workload.Assertions)
	r.Fingerprint.GeneratorCPUs = list(r.Fingerprint.GeneratorCPUs)
	r.Fingerprint.SystemCPUs = list(r.Fingerprint.SystemCPUs)
	r.Fingerprint.Runtimes = list(r.Fingerprint.Runtimes)
	r.Verdict = completeVerdict(r.Verdict)
	r.Plan.Warnings = list(r.Plan.Warnings)
	r.Plan.Cells = list(slices.Clone(r.Plan.Cells))
	for i := range r.Plan.Cells {
		r.Plan.Cells[i] = completeCell(r.Plan.Cells[i])
	}
	r.Cells = list(slices.Clone(r.Cells))
	for i := range r.Cells {
		c := &r.Cells[i]
		c.Cell = completeCell(c.Cell)
		c.Errors, c.Settings, c.Roles = mapping(c.Errors), list(c.Settings), list(c.Roles)
		c.Quantiles = maps.Clone(mapping(c.Quantiles))
		for q, sum := range c.Quantiles {
			sum.Sittings = list(sum.Sittings)
			c.Quantiles[q] = sum
		}
	}
	r.Comparisons, r.Resources = completeComparisons(r.Comparisons), completeComparisons(r.Resources)
	r.LeftOut = list(slices.Clone(r.LeftOut))
	for i := range r.LeftOut {
		r.LeftOut[i].Reasons = list(r.LeftOut[i].Reasons)
	}
	r.Failures, r.Warnings = list(r.Failures), list(r.Warnings)
	r.Trials = list(slices.Clone(r.Trials))
	for i := range r.Trials {
		r.Trials[i].Verdict = completeVerdict(r.Trials[i].Verdict)
	}
	return r
}

func completeComparisons(all []meshbench.Comparison) []meshbench.Comparison {
	all = list(slices.Clone(all))
	for i := range all {
		all[i].Differences = list(all[i].Differences)
	}
	return all
}
