package meshbench

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Quantile names one of the quantiles that are reported.
type Quantile string

// The reported quantiles.
const (
	P50   Quantile = "p50"
	P90   Quantile = "p90"
	P99   Quantile = "p99"
	P99_9 Quantile = "p99_9"
)

// Quantiles are all reported quantiles in order.
var Quantiles = []Quantile{P50, P90, P99, P99_9}

// Probability returns the quantile as a probability.
func (q Quantile) Probability() float64 {
	switch q {
	case P50:
		return 0.5
	case P90:
		return 0.9
	case P99:
		return 0.99
	case P99_9:
		return 0.999
	}
	panic("meshbench: unknown quantile " + string(q))
}

// Label returns the name as people read it: p99.9.
func (q Quantile) Label() string { return strings.ReplaceAll(string(q), "_", ".") }

// Microseconds is a time that JSON shows with three decimals.
type Microseconds float64

// MarshalJSON writes three decimals: a nanosecond.
func (m Microseconds) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", float64(m)), nil
}

// Latency is a distribution of times and its quantiles.
type Latency struct {
	Count uint64 // of the histogram
	Min   Microseconds
	Max   Microseconds
	// Values has the quantiles. One is absent where it falls among censored
	// values (AtLeast then has its lower bound) or where Count is 0.
	Values  map[Quantile]Microseconds
	AtLeast map[Quantile]Microseconds
	// Histogram is HDR V2, compressed; the unit of its values is 1 ns.
	Histogram []byte
}

// MarshalJSON writes {count, min_us, p50_us, ..., max_us, histogram}; a
// quantile that is not known is null, beside e.g. p99_at_least_us.
func (l Latency) MarshalJSON() ([]byte, error) {
	b := fmt.Appendf(nil, `{"count":%d`, l.Count)
	number := func(name string, v Microseconds, known bool) {
		if known {
			b = fmt.Appendf(b, `,"%s_us":%.3f`, name, float64(v))
		} else {
			b = fmt.Appendf(b, `,"%s_us":null`, name)
		}
	}
	number("min", l.Min, l.Count > 0)
	for _, q := range Quantiles {
		v, ok := l.Values[q]
		number(string(q), v, ok)
		if v, ok := l.AtLeast[q]; ok {
			number(string(q)+"_at_least", v, true)
		}
	}
	number("max", l.Max, l.Count > 0)
	h, err := json.Marshal(l.Histogram)
	if err != nil {
		return nil, err
	}
	b = append(b, `,"histogram":`...)
	b = append(b, h...)
	return append(b, '}'), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (l *Latency) UnmarshalJSON(data []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	var out Latency
	read := func(key string, into any) (bool, error) {
		v, ok := raw[key]
		if !ok || string(v) == "null" {
			return false, nil
		}
		return true, json.Unmarshal(v, into)
	}
	for key, into := range map[string]any{"count": &out.Count, "min_us": &out.Min, "max_us": &out.Max, "histogram": &out.Histogram} {
		if _, err := read(key, into); err != nil {
			return fmt.Errorf("latency %s: %w", key, err)
		}
	}
	for _, q := range Quantiles {
		for key, m := range map[string]*map[Quantile]Microseconds{string(q) + "_us": &out.Values, string(q) + "_at_least_us": &out.AtLeast} {
			var v Microseconds
			ok, err := read(key, &v)
			if err != nil {
				return fmt.Errorf("latency %s: %w", key, err)
			}
			if !ok {
				continue
			}
			if *m == nil {
				*m = map[Quantile]Microseconds{}
			}
			(*m)[q] = v
		}
	}
	*l = out
	return nil
}

// LoadState says what became of the offered rate.
type LoadState string

// The load states.
const (
	Kept       LoadState = "kept"
	Saturated  LoadState = "saturated"   // the backlog grows, or under 99 % of what was offered was achieved
	ClosedLoop LoadState = "closed_loop" // nothing was offered: the answers set the pace
)

// Status is a verdict in one word.
type Status string

// The verdicts.
const (
	Valid       Status = "valid"
	Suspect     Status = "suspect"
	InvalidTest Status = "invalid" // the measurement, not the subject, failed
)

// Reason is why a verdict is not "valid". Codes are listed in docs/method.md.
type Reason struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Verdict says whether generator and machine were fit to measure this.
type Verdict struct {
	Status  Status   `json:"status"`
	Reasons []Reason `json:"reasons"`
}

// Add appends a reason and makes the status no better than s.
func (v *Verdict) Add(s Status, code, format string, args ...any) {
	v.Reasons = append(v.Reasons, Reason{Code: code, Message: fmt.Sprintf(format, args...)})
	if v.Status == "" || v.Status == Valid || s == InvalidTest {
		v.Status = s
	}
}

// PredictedLateness is how late a perfect generator would have been for the
// machine's own gaps: P(L > x) = sum(max(0, g - x)) / T over gaps g in time T.
type PredictedLateness struct {
	P50   Microseconds `json:"p50_us"`
	P99   Microseconds `json:"p99_us"`
	P99_9 Microseconds `json:"p99_9_us"`
}

// Gaps is what a spinning calibration on the generator's core saw.
type Gaps struct {
	Share     float64           `json:"share"` // of the time, that the core was elsewhere
	Predicted PredictedLateness `json:"predicted_lateness"`
}

// Generator is the generator's own cost; it is never mixed into a subject's.
type Generator struct {
	Engine              string       `json:"engine"`
	CPUSeconds          float64      `json:"cpu_seconds"`        // all of it
	SpinSeconds         float64      `json:"spin_seconds"`       // of it, waiting and calibration
	CPUPerRequest       Microseconds `json:"cpu_us_per_request"` // without spinning
	PeakMemoryBytes     uint64       `json:"peak_memory_bytes"`
	InvoluntarySwitches uint64       `json:"involuntary_switches"` // the core was taken from the loop
	StealShare          float64      `json:"steal_share"`          // of the core's time, by the hypervisor (/proc/stat)
	GarbageCollections  uint32       `json:"garbage_collections"`
	Workers             int          `json:"workers"`
	StartSkewSeconds    float64      `json:"start_skew_seconds"` // between the first and the last worker
}

// Batch is what 100 ms of a trial contribute to the effective sample sizes:
// how many requests were answered, and how many of them later than the
// trial's own quantile.
type Batch struct {
	Count uint32              `json:"n"`
	Above map[Quantile]uint32 `json:"above"`
}

// LoadResult is what the generator measured in one trial, or in one
// `meshbench load`. planned = completed + errored + timed_out + skipped +
// unfinished, exactly.
type LoadResult struct {
	Target     string            `json:"target"`
	Planned    uint64            `json:"planned"`
	Completed  uint64            `json:"completed"` // whole response, every assertion holds
	Errored    uint64            `json:"errored"`   // by class in Errors
	TimedOut   uint64            `json:"timed_out"`
	Skipped    uint64            `json:"skipped"`    // never sent, by a stated rule
	Unfinished uint64            `json:"unfinished"` // in flight at the end
	Errors     map[string]uint64 `json:"errors"`
	// ConnectionErrors are those of connections without a request: they are
	// not part of the sum above.
	ConnectionErrors map[string]uint64 `json:"connection_errors,omitempty"`

	// Sent counts every request whose first byte was written since the job
	// began, warm-up and settling included: what the proof of path compares.
	Sent uint64 `json:"sent"`

	ElapsedSeconds float64 `json:"elapsed_seconds"`
	ThroughputRPS  float64 `json:"throughput_rps"` // completed per second

	Response       Latency  `json:"response"`        // intended start to last byte; the headline
	ConnectionWait Latency  `json:"connection_wait"` // taken up to first byte written, less connect time
	Service        Latency  `json:"service"`         // first byte written to last byte read
	Lateness       *Latency `json:"lateness"`        // taken up after the intended start; nil in closed loop
	Connect        Latency  `json:"connect"`         // connection set-up
	ErrorResponse  Latency  `json:"error_response"`  // intended start to the error

	LoadState LoadState `json:"load_state"`
	Gaps      Gaps      `json:"gaps"`
	Generator Generator `json:"generator"`
	Verdict   Verdict   `json:"verdict"`

	BytesRead    uint64  `json:"bytes_read"`
	BytesWritten uint64  `json:"bytes_written"`
	Batches      []Batch `json:"batches,omitempty"`
}

// Role is whose work a process does.
type Role string

// The roles.
const (
	Application   Role = "application"
	ClientProxy   Role = "client_proxy"
	ServerProxy   Role = "server_proxy"
	Gateway       Role = "gateway"
	ControlPlane  Role = "control_plane"
	GeneratorRole Role = "generator"
	OtherRole     Role = "other"
)

// Roles are all roles in the order in which reports show them.
var Roles = []Role{ClientProxy, ServerProxy, Gateway, Application, ControlPlane, OtherRole, GeneratorRole}

// Usage is what one process used during one trial.
type Usage struct {
	Role     Role   `json:"role"`
	Service  string `json:"service"`  // "echo"; empty where a process serves no one service
	Instance int    `json:"instance"` // 0 for the first
	Process  string `json:"process"`  // the program's name

	CPUPer1000Requests *float64 `json:"cpu_ms_per_1000_requests"` // nil where nothing completed
	CPUCores           float64  `json:"cpu_cores"`
	UserCores          float64  `json:"user_cores"`
	SystemCores        float64  `json:"system_cores"`
	IdleCPUCores       float64  `json:"idle_cpu_cores"`    // the standing cost, before the load
	MemoryMeanBytes    uint64   `json:"memory_mean_bytes"` // RssAnon
	MemoryPeakBytes    uint64   `json:"memory_peak_bytes"`
	MemoryFileBytes    uint64   `json:"memory_file_bytes"` // RssFile, beside it
}

// ProofStatus says whether the requests went through the mesh.
type ProofStatus string

// The outcomes of a proof of path.
const (
	Proven        ProofStatus = "proven"
	ProofFailed   ProofStatus = "failed"
	NotApplicable ProofStatus = "not_applicable"
)

// Proof is the proof of path: what each station counted between the idle
// machine before warm-up and after draining.
type Proof struct {
	Status      ProofStatus `json:"status"`
	Sent        uint64      `json:"sent"`
	ClientProxy uint64      `json:"client_proxy"`
	ServerProxy uint64      `json:"server_proxy"`
	Application uint64      `json:"application"`
	Handshakes  uint64      `json:"handshakes"`          // mutual TLS, between the proxies
	Plaintext   uint64      `json:"plaintext"`           // connections between the proxies that were not
	PeerName    string      `json:"peer_name,omitempty"` // as the application saw it
	Reason      string      `json:"reason,omitempty"`    // why it failed or does not apply
	Hops        []HopProof  `json:"hops,omitempty"`      // between services; the way in is above
}

// HopProof is what was counted between two services.
type HopProof struct {
	From        string `json:"from"`
	To          string `json:"to"`
	Expected    uint64 `json:"expected"`     // requests that those sent make here, where nothing fails
	ClientProxy uint64 `json:"client_proxy"` // that the sender's proxy sent on; connections where it knows no requests
	ServerProxy uint64 `json:"server_proxy"` // that the receiver's got
	Handshakes  uint64 `json:"handshakes"`
	Plaintext   uint64 `json:"plaintext"`
}

// Setting is one row of the table of settings as observed.
type Setting struct {
	Name  string `json:"name"` // "threads", "tls_version", "tls_group", "tls_cipher", "upstream_http", "access_log", "version"
	Value string `json:"value"`
}

// Trial is one cell measured once.
type Trial struct {
	Cell      string     `json:"cell"`             // id
	Sitting   int        `json:"sitting"`          // from 1
	Block     int        `json:"block"`            // from 1, in the sitting
	Order     int        `json:"order"`            // from 1, in the block
	Repeat    bool       `json:"repeat,omitempty"` // of a block with an invalid trial, at the end of its sitting
	StartedAt string     `json:"started_at"`       // RFC 3339
	Load      LoadResult `json:"load"`
	Usage     []Usage    `json:"usage"`
	Proof     Proof      `json:"proof"`
	Settings  []Setting  `json:"settings"`
	// Metrics are what applications and the experiment's own sources told
	// while the trial ran.
	Metrics []MetricSeries `json:"metrics,omitempty"`
	// ParkedCPUCores is what all subjects that were not being measured used.
	ParkedCPUCores float64 `json:"parked_cpu_cores"`
	NeighbourCores float64 `json:"neighbour_cores"` // used on the machine by processes that are not ours
	Verdict        Verdict `json:"verdict"`         // the generator's and the machine's together
}
