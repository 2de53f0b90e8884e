package meshbench

// MetricSource is where figures of other programs are read during trials: a
// Prometheus exposition, or a Prometheus server that is asked a query.
type MetricSource struct {
	Name string `json:"name"`
	// URL is that of the exposition ("http://127.0.0.1:9100/metrics"), or with
	// a Query the server's own ("http://127.0.0.1:9090").
	URL string `json:"url"`
	// Series are the metrics to keep, by their names; one that ends in * means
	// all that begin so. Empty: all, up to a limit.
	Series   []string `json:"series,omitempty"`
	Query    string   `json:"query,omitempty"`    // PromQL, asked over the time of a trial after its end
	Interval Duration `json:"interval,omitempty"` // between readings; 0: one second
}

// MetricKind tells how a series is to be read.
type MetricKind string

// The kinds. A histogram or a summary becomes counters: its _count and _sum.
const (
	CounterMetric MetricKind = "counter" // only grows; its points are per second
	GaugeMetric   MetricKind = "gauge"
)

// MetricSeries is one series of one source during one trial.
type MetricSeries struct {
	Source string     `json:"source"`
	Series string     `json:"series"` // `http_requests_total{code="200"}`
	Kind   MetricKind `json:"kind"`
	// Points are the readings in order: seconds since the trial began, and the
	// value; of a counter, its increase per second since the reading before.
	Points [][2]float64 `json:"points"`
	// Increase is how much a counter grew; where it began anew (its process
	// was restarted), what it had reached before counts too.
	Increase float64 `json:"increase,omitempty"`
	Seconds  float64 `json:"seconds,omitempty"` // from a counter's first reading to its last
	Resets   int     `json:"resets,omitempty"`
}

// MetricSummary is one series of one cell over its sittings.
type MetricSummary struct {
	Source string     `json:"source"`
	Series string     `json:"series"`
	Kind   MetricKind `json:"kind"`
	// Sittings are the medians over a sitting's trials of a trial's mean (of a
	// counter: its increase per second).
	Sittings []SittingValue `json:"sittings"`
	Median   float64        `json:"median"` // over sittings
	Min      float64        `json:"min"`    // of all points
	Max      float64        `json:"max"`
	Resets   int            `json:"resets"`
}
