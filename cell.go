package meshbench

// NetworkPath is how requests travel between generator, proxies and
// application. Cells on different paths are never compared.
type NetworkPath string

// The network paths of this version.
const (
	PathLoopback NetworkPath = "loopback" // all on one machine's loopback device
	PathEndpoint NetworkPath = "endpoint" // unknown: someone else's URL
	// PathNamespaces: generator, client and services each in a network
	// namespace of one machine, joined by links and a bridge, as pods of one
	// node are.
	PathNamespaces NetworkPath = "namespaces"
)

// Cell is one permutation of an experiment.
type Cell struct {
	ID             string         `json:"id"` // unique in a run: the subject's id, then what the axes set
	Subject        Subject        `json:"subject"`
	Infrastructure string         `json:"infrastructure"`
	URL            string         `json:"url,omitempty"` // infrastructure endpoint only
	Path           NetworkPath    `json:"path"`
	Profile        Profile        `json:"profile"`
	Workload       Workload       `json:"workload"`
	Load           Load           `json:"load"`
	Axes           map[string]any `json:"axes"`               // rate_rps (null: closed loop) always; others where they vary
	Baseline       string         `json:"baseline,omitempty"` // the id of the cell compared with; empty: this is one
}

// Plan is what a run will do, fixed before it starts.
type Plan struct {
	Cells       []Cell    `json:"cells"`
	Sittings    int       `json:"sittings"`
	Blocks      int       `json:"blocks"`      // per sitting
	Seed        uint64    `json:"seed"`        // of the block orders and the arrivals
	FamilySize  int       `json:"family_size"` // m of Bonferroni: all quantiles of all comparisons
	Level       float64   `json:"level"`       // attained level of each interval shown
	TrialsTotal int       `json:"trials"`      // planned trials
	Estimate    Duration  `json:"estimate"`    // of the whole run, without downloads
	InTrials    Duration  `json:"in_trials"`   // of it, inside trials
	Warnings    []Warning `json:"warnings"`    // what this plan cannot answer, and what would
}

// Warning is a doubt about a plan or a result, as a value.
type Warning struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}
