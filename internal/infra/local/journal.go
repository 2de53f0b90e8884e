package local

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/meshbench/meshbench/internal/telemetry"
)

// journal is what one supervisor has started and not yet seen gone. It is
// written whole, beside and then over the last one, so that a reader finds
// either. Nothing is forced to the disk: the page cache outlives every
// process, and after a crash of the machine none of them lives.
type journal struct {
	BootID string `json:"boot_id"`
	// PIDNamespace is where the process ids mean something: a state directory
	// may be shared with a container.
	PIDNamespace string `json:"pid_namespace"`

	Owner      telemetry.Identity `json:"owner"` // who measures
	Supervisor telemetry.Identity `json:"supervisor"`
	Processes  []entry            `json:"processes"`
	// Pipes are the inodes of their logs' pipes. A process that holds one as
	// its output was started by us or below us, even where it has left its
	// parent, its group and its session. They are written before the start.
	Pipes []uint64 `json:"pipes"`
	// Paths are directories made for them, to be removed.
	Paths []string `json:"paths"`
	// Links are network links of this machine that may have been made. They
	// carry the journal's mark, and lead to namespaces that end with the
	// processes.
	Links []string `json:"links,omitempty"`
}

// linkName is the name of a network's link on this machine.
var linkName = regexp.MustCompile(`^mb[0-9]{1,3}$`)

// mark is the alias of links that belong to the journal's supervisor.
func (j journal) mark() string {
	return fmt.Sprintf("meshbench %d-%d", j.Supervisor.PID, j.Supervisor.StartTicks)
}

// entry is a process, or a descendant of one as last seen.
type entry struct {
	telemetry.Identity
	Name string `json:"name"`
	Exe  string `json:"exe"`
}

func journalDir(stateDir string) string { return filepath.Join(stateDir, "journal") }

func (j journal) path(stateDir string) string {
	return filepath.Join(journalDir(stateDir), fmt.Sprintf("%d-%d.json", j.Supervisor.PID, j.Supervisor.StartTicks))
}

func (j journal) write(stateDir string) error {
	if err := os.MkdirAll(journalDir(stateDir), 0o700); err != nil {
		return err
	}
	text, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return err
	}
	path := j.path(stateDir)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// parseJournal reads a journal. Process ids that no process can have, and
// paths that are not absolute, make it malformed: nothing is ended or removed
// by a journal that is not whole.
func parseJournal(text []byte) (journal, error) {
	var j journal
	if err := json.Unmarshal(text, &j); err != nil {
		return journal{}, err
	}
	if j.BootID == "" || j.Supervisor.PID <= 1 {
		return journal{}, fmt.Errorf("it names no boot or no supervisor")
	}
	for _, p := range j.Processes {
		if p.PID <= 1 {
			return journal{}, fmt.Errorf("it names process %d", p.PID)
		}
	}
	for _, p := range j.Paths {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" {
			return journal{}, fmt.Errorf("it names the path %q", p)
		}
	}
	for _, l := range j.Links {
		if !linkName.MatchString(l) {
			return journal{}, fmt.Errorf("it names the link %q", l)
		}
	}
	return j, nil
}

// drop removes the entries for which gone is true.
func (j *journal) drop(gone func(entry) bool) {
	j.Processes = slices.DeleteFunc(j.Processes, gone)
}

// add notes processes that are not in the journal yet, and tells whether
// there was one.
func (j *journal) add(found []telemetry.Stat) bool {
	known := map[telemetry.Identity]bool{}
	for _, e := range j.Processes {
		known[e.Identity] = true
	}
	added := false
	for _, p := range found {
		if !known[p.Identity] && !p.Dead() {
			j.Processes = append(j.Processes, entry{Identity: p.Identity, Name: p.Name})
			added = true
		}
	}
	return added
}
