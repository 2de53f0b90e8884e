package load

import (
	"time"

	"github.com/meshbench/meshbench"
)

// Tick is what 100 ms of a job look like to somebody who watches. Counts are
// of the tick alone and of all workers; Total has those since the beginning.
// Sent includes the warm-up, all others are of counted requests.
type Tick struct {
	Phase       Phase                  `json:"phase"`
	Elapsed     time.Duration          `json:"elapsed_ns"` // since the loop's first moment
	Sent        uint64                 `json:"sent"`
	Planned     uint64                 `json:"planned"`
	Completed   uint64                 `json:"completed"`
	Errored     uint64                 `json:"errored"`
	TimedOut    uint64                 `json:"timed_out"`
	Backlog     int64                  `json:"backlog"`   // waiting for a connection now
	InFlight    int64                  `json:"in_flight"` // sent and not answered now
	P50         meshbench.Microseconds `json:"p50_us"`    // of the responses in this tick; 0 where there is none
	P99         meshbench.Microseconds `json:"p99_us"`
	MaxLateness meshbench.Microseconds `json:"max_lateness_us"`
	Total       Totals                 `json:"total"`
}

// Totals are counts since the beginning of a job.
type Totals struct {
	Sent      uint64 `json:"sent"`
	Planned   uint64 `json:"planned"`
	Completed uint64 `json:"completed"`
	Errored   uint64 `json:"errored"`
	TimedOut  uint64 `json:"timed_out"`
}

// The phases of a job.
const (
	Warmup  Phase = "warmup"
	Measure Phase = "measure"
	Drain   Phase = "drain"
)
