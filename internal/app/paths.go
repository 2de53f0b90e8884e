package app

import (
	"slices"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/builtin"
)

// onPaths gives cells the network path that their subject has. Cells on
// different paths are never compared: a cell whose baseline is on another one
// is compared with no mesh on its own path, and that cell is added, before the
// first that needs it, where it is not among them. No mesh on another path is a
// baseline itself.
func onPaths(cells []meshbench.Cell) ([]meshbench.Cell, error) {
	paths := map[string]meshbench.NetworkPath{}
	for i, c := range cells {
		if c.Infrastructure != meshbench.Endpoint {
			driver, err := builtin.Find(c.Subject.Mesh)
			if err != nil {
				return nil, err
			}
			cells[i].Path = mesh.PathOf(driver.Describe(), c.Subject)
		}
		paths[c.ID] = cells[i].Path
	}
	out := make([]meshbench.Cell, 0, len(cells))
	for _, c := range cells {
		if c.Baseline == "" || paths[c.Baseline] == c.Path {
			out = append(out, c)
			continue
		}
		base := slices.IndexFunc(cells, func(b meshbench.Cell) bool { return b.ID == c.Baseline })
		added, err := noneBeside(cells[base], c)
		if err != nil {
			return nil, err
		}
		c.Baseline = added.ID
		if c.Baseline == c.ID {
			c.Baseline = ""
		}
		if _, known := paths[added.ID]; !known {
			paths[added.ID] = added.Path
			out = append(out, added)
		}
		out = append(out, c)
	}
	return out, nil
}

// noneBeside is the cell of no mesh on the path of c, at the point of the
// axes that both cells have.
func noneBeside(base, c meshbench.Cell) (meshbench.Cell, error) {
	suffix, _ := strings.CutPrefix(base.ID, base.Subject.ID)
	words := "none"
	if c.Path != meshbench.PathLoopback {
		words += ":" + mesh.PathOption + "=" + string(c.Path)
	}
	s, err := meshbench.ParseSubject(words)
	if err != nil {
		return meshbench.Cell{}, err
	}
	out := c
	out.Subject, out.ID, out.Baseline = s, s.ID+suffix, ""
	return out, nil
}
