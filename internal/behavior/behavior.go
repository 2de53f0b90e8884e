// Package behavior finds out what each mesh really does to requests: probes
// send them, byte by byte where that matters, see what arrives at the
// application and what comes back, and compare it with what a standard or
// the mesh's own documentation says. The outcome is a matrix of probes and
// subjects. It is no score: a difference is for the reader to judge.
package behavior

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// Result is what a probe found out about a subject.
type Result string

// The results.
const (
	Passed      Result = "passed"      // as expected
	Differs     Result = "differs"     // clearly something else
	Unsupported Result = "unsupported" // the mesh does not have it; the evidence has a source
	Failed      Result = "failed"      // it could not be decided
)

// Decided tells whether the subject was put to the test and an answer came.
func (r Result) Decided() bool { return r == Passed || r == Differs }

// Cell is one probe on one subject.
type Cell struct {
	Probe     string `json:"probe"`
	Subject   string `json:"subject"`
	Expected  string `json:"expected"`
	Reference string `json:"reference"`
	Result    Result `json:"result"`
	Evidence  string `json:"evidence"` // what was sent and what was seen
}

// ProbeInfo is a probe as the matrix describes it.
type ProbeInfo struct {
	Name      string `json:"name"`
	Group     string `json:"group"`
	Question  string `json:"question"`
	Expected  string `json:"expected"`
	Reference string `json:"reference"`
}

// Matrix is the outcome.
type Matrix struct {
	SchemaVersion int                   `json:"schema_version"`
	Fingerprint   meshbench.Fingerprint `json:"fingerprint"`
	Profile       meshbench.Profile     `json:"profile"`
	Subjects      []string              `json:"subjects"`
	Probes        []ProbeInfo           `json:"probes"`
	Cells         []Cell                `json:"cells"`
}

// Cell returns the cell of a probe and a subject.
func (m Matrix) Cell(probe, subject string) (Cell, bool) {
	for _, c := range m.Cells {
		if c.Probe == probe && c.Subject == subject {
			return c, true
		}
	}
	return Cell{}, false
}

// Count tells how many cells of a subject have a result.
func (m Matrix) Count(subject string, r Result) int {
	n := 0
	for _, c := range m.Cells {
		if c.Subject == subject && c.Result == r {
			n++
		}
	}
	return n
}

// Has tells whether any cell has a result.
func (m Matrix) Has(r Result) bool {
	for _, c := range m.Cells {
		if c.Result == r {
			return true
		}
	}
	return false
}

// Decided tells how many probes were decided for a subject.
func (m Matrix) Decided(subject string) int {
	return m.Count(subject, Passed) + m.Count(subject, Differs)
}

// Need is what a probe asks of the subject beside policies.
type Need int

// The needs.
const (
	Proxy        Need = 1 << iota // there is one
	Stranger                      // the driver is a mesh.Stranger
	Rotation                      // the driver is a mesh.Rotator
	PeerName                      // the application learns who calls
	ControlPlane                  // one runs
)

// Ground is the kind of deployment that a probe works on.
type Ground string

// The kinds of deployments.
const (
	Shared Ground = "shared" // services echo and echo-v2, one instance each; used by many probes
	Pair   Ground = "pair"   // the same with two instances of echo
	Ruin   Ground = "ruin"   // like Shared, for this probe alone: it breaks something
	Orphan Ground = "orphan" // like Shared; the control plane was killed after a first request
)

// Probe is one behaviour.
type Probe struct {
	Name      string // "group.behaviour"
	Question  string
	Expected  string
	Reference string // where the expectation comes from
	Policies  []meshbench.PolicyKind
	Needs     Need
	Ground    Ground // empty: Shared
	// Time is the longest that it may take; 0: probeTime.
	Time time.Duration
	// Run tries it. An error says that it could not be decided.
	Run func(ctx context.Context, b *Bed) (Finding, error)
}

// Group is the first part of the name.
func (p Probe) Group() string {
	group, _, _ := strings.Cut(p.Name, ".")
	return group
}

func (p Probe) time() time.Duration {
	if p.Time == 0 {
		return probeTime
	}
	return p.Time
}

func (p Probe) ground() Ground {
	if p.Ground == "" {
		return Shared
	}
	return p.Ground
}

// Finding is what Run decided.
type Finding struct {
	Result   Result
	Evidence string
}

func decide(ok bool, format string, args ...any) (Finding, error) {
	r := Differs
	if ok {
		r = Passed
	}
	return Finding{r, fmt.Sprintf(format, args...)}, nil
}

// unsupported tells why a probe has no sense for a mesh, with its source;
// empty where it has.
func (p Probe) unsupported(driver mesh.Driver, r mesh.Request, spec meshbench.Spec) string {
	d := mesh.DescribeSubject(driver, r.Subject)
	for _, kind := range p.Policies {
		for _, c := range d.Capabilities {
			if c.Policy == kind && !c.Supported {
				return fmt.Sprintf("policy %s: %s (source: %s)", kind, c.Note, c.Source)
			}
		}
	}
	if !d.HasProxy && p.Needs != 0 {
		return "there is no proxy that could do it (source: docs/architecture.md)"
	}
	if p.Needs&PeerName != 0 && !d.NamesPeer {
		return "it does not tell the application who calls (source: docs/meshes.md)"
	}
	if p.Needs&Stranger != 0 {
		s, ok := driver.(mesh.Stranger)
		if !ok {
			return "its driver knows no way to a proxy past the mesh (source: docs/meshes.md)"
		}
		if why := s.NoStranger(r); why != "" {
			return why
		}
	}
	if p.Needs&Rotation != 0 {
		if _, ok := driver.(mesh.Rotator); !ok {
			return "its certificates change when its control plane wants, not on demand (source: docs/meshes.md)"
		}
	}
	if p.Needs&ControlPlane != 0 && !hasRole(spec, meshbench.ControlPlane) {
		return "it has no control plane (source: docs/meshes.md)"
	}
	return ""
}

func hasRole(spec meshbench.Spec, role meshbench.Role) bool {
	for _, p := range spec.Processes {
		if p.Role == role {
			return true
		}
	}
	return false
}

// Event tells how far a matrix is.
type Event struct {
	Subject     string
	Probe       string // empty: the subject is being deployed
	Done, Total int
	Cell        *Cell // of a probe that has just ended
}

// probeTime is the longest that a probe may take which does not say otherwise.
const probeTime = 60 * time.Second
