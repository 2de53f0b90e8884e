package meshbench

import (
	"encoding/json"
	"math"
	"time"
)

// SchemaVersion is of every JSON document that Meshbench prints.
const SchemaVersion = 1

// State is what has become of a run.
type State string

// The states. Running is seen in the store only.
const (
	Running     State = "running"
	Finished    State = "finished"
	Interrupted State = "interrupted" // cut off; never silently run again
	Failed      State = "failed"      // nothing could be measured
	Partial     State = "partial"     // some cells could not be measured
)

// Run is one execution of an experiment: what the store keeps.
type Run struct {
	ID          string      `json:"id"` // ULID
	State       State       `json:"state"`
	StartedAt   time.Time   `json:"started_at"`
	FinishedAt  *time.Time  `json:"finished_at,omitempty"`
	Experiment  Experiment  `json:"experiment"`
	Plan        Plan        `json:"plan"`
	Fingerprint Fingerprint `json:"fingerprint"`
	Headline    string      `json:"headline"`
	Error       *Error      `json:"error,omitempty"`
	Failures    []Failure   `json:"failures,omitempty"` // what went wrong and was survived
}

// Failure is one thing that went wrong in a run that went on.
type Failure struct {
	Cell    string `json:"cell,omitempty"`
	Sitting int    `json:"sitting,omitempty"`
	Message string `json:"message"`
	Log     string `json:"log,omitempty"` // last lines of the process's log
}

// Fingerprint is the environment of a run.
type Fingerprint struct {
	Meshbench      string            `json:"meshbench"` // version
	OS             string            `json:"os"`
	Kernel         string            `json:"kernel"`
	CPUModel       string            `json:"cpu_model"`
	Cores          int               `json:"cores"`
	ThreadsPerCore int               `json:"threads_per_core"`
	MemoryBytes    uint64            `json:"memory_bytes"`
	Governor       string            `json:"governor,omitempty"` // empty: not visible
	Mitigations    map[string]string `json:"mitigations,omitempty"`
	Virtualisation string            `json:"virtualisation,omitempty"`
	StealShare     float64           `json:"steal_share"`
	OpenFiles      uint64            `json:"open_files_limit"`
	CPULimit       float64           `json:"cpu_limit_cores,omitempty"` // of the cgroup; 0: none
	GeneratorCPUs  []int             `json:"generator_cpus"`
	SystemCPUs     []int             `json:"system_cpus"`
	Runtimes       []RuntimeUsed     `json:"runtimes"`
	ExperimentHash string            `json:"experiment_sha256"`
	Seed           uint64            `json:"seed"`
}

// RuntimeUsed is a real binary that took part in a run.
type RuntimeUsed struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
	Source  string `json:"source"` // "path", "wheel", ...
}

// Estimate is a value with its interval; Low and High are nil where no
// interval can be had. Estimate is NaN, and null in JSON, where there is no
// figure at all.
type Estimate struct {
	Estimate float64  `json:"estimate"`
	Low      *float64 `json:"low"`
	High     *float64 `json:"high"`
	Unit     string   `json:"unit,omitempty"` // "us", "ms_per_1000_requests", "bytes"; empty for a ratio
}

// MarshalJSON writes an unknown estimate as null.
func (e Estimate) MarshalJSON() ([]byte, error) {
	type plain Estimate
	if !math.IsNaN(e.Estimate) {
		return json.Marshal(plain(e))
	}
	return json.Marshal(struct {
		Unknown *float64 `json:"estimate"`
		plain
	}{nil, plain(e)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *Estimate) UnmarshalJSON(data []byte) error {
	type plain Estimate
	known := struct {
		Estimate *float64 `json:"estimate"`
	}{}
	if err := json.Unmarshal(data, &known); err != nil {
		return err
	}
	if err := json.Unmarshal(data, (*plain)(e)); err != nil {
		return err
	}
	if known.Estimate == nil {
		e.Estimate = math.NaN()
	}
	return nil
}

// Significance is the decision about one comparison.
type Significance string

// The decisions.
const (
	Worse        Significance = "worse"
	Better       Significance = "better"
	None         Significance = "none" // no difference larger than the margin
	Inconclusive Significance = "inconclusive"
)

// Comparison is a cell against its baseline's cell in one metric.
type Comparison struct {
	Cell         string       `json:"cell"`
	BaselineCell string       `json:"baseline_cell"`
	Metric       string       `json:"metric"`    // "response.p50"
	Estimator    string       `json:"estimator"` // "hodges_lehmann_over_sittings"
	N            int          `json:"n"`         // sittings
	FamilySize   int          `json:"family_size"`
	Margin       float64      `json:"margin"` // in the difference's unit
	Level        float64      `json:"level"`  // attained level of the interval
	Difference   Estimate     `json:"difference"`
	Ratio        Estimate     `json:"ratio"`
	P            float64      `json:"p"`
	PAdjusted    float64      `json:"p_adjusted"`
	Significance Significance `json:"significance"` // empty for a resource: descriptive
	// Differences are the sittings' own, in order; StdDev is theirs.
	Differences []SittingValue `json:"sitting_differences"`
	StdDev      float64        `json:"sitting_std_dev"`
	// BlockStdDev is the spread within sittings; nil with one block each.
	BlockStdDev *float64 `json:"block_std_dev,omitempty"`
	Reason      string   `json:"reason,omitempty"` // why there is no figure: "n too small", "saturated", ...
}

// SittingValue is one sitting's value of something.
type SittingValue struct {
	Sitting int     `json:"sitting"`
	Value   float64 `json:"value"`
}

// QuantileSummary is one quantile of one cell over its sittings.
type QuantileSummary struct {
	Median   *Microseconds  `json:"median_us"` // over sittings of the sittings' medians; nil where trials do not carry it
	Sittings []SittingValue `json:"sittings"`  // in microseconds
	// EffectiveSize is the smallest effective sample size of a trial; Needed
	// what the quantile needs.
	EffectiveSize float64 `json:"effective_size"`
	Needed        float64 `json:"needed_size"`
	// TrialNeeded is the --trial that would carry the quantile; zero where it is carried.
	TrialNeeded    Duration `json:"trial_needed,omitempty"`
	MachineLimited bool     `json:"machine_limited,omitempty"` // the machine's gaps explain more than half of it
}

// CellResult is a cell with what was measured of it.
type CellResult struct {
	Cell
	LoadState     LoadState                    `json:"load_state"`     // saturated where more than 1 in 5 of its trials are
	Trials        int                          `json:"trials"`         // that count
	Response      Latency                      `json:"response"`       // pooled over trials: for the spectrum only
	Quantiles     map[Quantile]QuantileSummary `json:"quantiles"`      // what the table shows
	ThroughputRPS float64                      `json:"throughput_rps"` // median over sittings
	Planned       uint64                       `json:"planned"`
	Completed     uint64                       `json:"completed"`
	Errors        map[string]uint64            `json:"errors"` // class -> count, timed_out and unfinished included
	Proof         Proof                        `json:"proof"`  // summed over trials; the worst status
	Settings      []Setting                    `json:"settings"`
	Roles         []Usage                      `json:"roles"` // medians over sittings, peaks as maxima
	Hops          *HopCost                     `json:"hops,omitempty"`
	Metrics       []MetricSummary              `json:"metrics,omitempty"`
}

// HopCost is how a request walks the services of a cell, and what each hop of
// it costs.
type HopCost struct {
	Hops  int `json:"hops"`  // ways from a sender to a service per request: pairs of proxies
	Depth int `json:"depth"` // of them, those that follow one another
	// ProxyCPU is the CPU of all proxies for 1,000 requests, divided by Hops;
	// the median over sittings; nil where there are no proxies.
	ProxyCPU *float64 `json:"proxy_cpu_ms_per_1000_requests"`
	// AddedP50 is the difference of response.p50 from the baseline, with its
	// interval, divided by Depth; nil where there is none.
	AddedP50 *Estimate `json:"added_p50"`
}

// GeneratorHealth is how the generator fared over all trials.
type GeneratorHealth struct {
	LatenessP50     Microseconds `json:"lateness_p50_us"` // pooled
	LatenessP99     Microseconds `json:"lateness_p99_us"`
	PredictedP50    Microseconds `json:"predicted_p50_us"` // from the gaps, median over trials
	PredictedP99    Microseconds `json:"predicted_p99_us"`
	GapShare        float64      `json:"gap_share"`
	StealShare      float64      `json:"steal_share"`
	CPUPerRequest   Microseconds `json:"cpu_us_per_request"`
	PeakMemoryBytes uint64       `json:"peak_memory_bytes"`
	Lateness        Latency      `json:"lateness"` // pooled histogram
}

// LeftOut is a block that stayed out of every comparison.
type LeftOut struct {
	Sitting  int      `json:"sitting"`
	Block    int      `json:"block"`
	Repeated bool     `json:"repeated"` // and its repeat took its place
	Reasons  []Reason `json:"reasons"`
}

// TrialSummary is a trial as the result shows it.
type TrialSummary struct {
	Cell          string    `json:"cell"`
	Sitting       int       `json:"sitting"`
	Block         int       `json:"block"`
	Order         int       `json:"order"`
	Repeat        bool      `json:"repeat,omitempty"`
	Response      Latency   `json:"response"`
	ThroughputRPS float64   `json:"throughput_rps"`
	Lateness      *Latency  `json:"lateness"`
	LoadState     LoadState `json:"load_state"`
	Gaps          Gaps      `json:"gaps"`
	Usage         []Usage   `json:"usage"`
	Verdict       Verdict   `json:"verdict"`
}

// Result is what every surface shows: one object behind table, JSON,
// Markdown and HTML.
type Result struct {
	SchemaVersion int             `json:"schema_version"`
	ID            string          `json:"id"`
	State         State           `json:"state"`
	Headline      string          `json:"headline"`
	StartedAt     time.Time       `json:"started_at"`
	FinishedAt    *time.Time      `json:"finished_at,omitempty"`
	Experiment    Experiment      `json:"experiment"`
	Plan          Plan            `json:"plan"`
	Fingerprint   Fingerprint     `json:"fingerprint"`
	Verdict       Verdict         `json:"verdict"`
	Cells         []CellResult    `json:"cells"`
	Comparisons   []Comparison    `json:"comparisons"`
	Resources     []Comparison    `json:"resource_comparisons"` // 95 % intervals, no significance
	Generator     GeneratorHealth `json:"generator"`
	LeftOut       []LeftOut       `json:"left_out"`
	FailOn        []FailOnOutcome `json:"fail_on,omitempty"`
	Failures      []Failure       `json:"failures"`
	Warnings      []Warning       `json:"warnings"`
	Trials        []TrialSummary  `json:"trials"`
	Error         *Error          `json:"error,omitempty"`
}

// FailOnOutcome is what became of one --fail-on condition.
type FailOnOutcome struct {
	Condition string `json:"condition"` // 'response.p99>+5%'
	Cell      string `json:"cell"`
	Outcome   string `json:"outcome"` // passed, regression, inconclusive
	Message   string `json:"message"`
}
