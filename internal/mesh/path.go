package mesh

import "github.com/meshbench/meshbench"

// PathOption is the option of a subject that says which network path it is on.
const PathOption = "path"

// PathOf returns the network path of a subject on this machine: what its
// option says, else what the mesh always needs, else loopback.
func PathOf(d Description, s meshbench.Subject) meshbench.NetworkPath {
	if p := s.Options[PathOption]; p != "" {
		return meshbench.NetworkPath(p)
	}
	if d.Path != "" {
		return d.Path
	}
	return meshbench.PathLoopback
}
