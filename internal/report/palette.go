package report

import (
	"strconv"

	"github.com/meshbench/meshbench"
)

// paletteSize is how many subject colours report.css defines: chosen so that
// every two differ in lightness as well as in hue, and each keeps a contrast
// of 3 to 1 with the ground, light and dark.
const paletteSize = 7

// dashes is how many dash patterns report.css defines for lines.
const dashes = 4

// palette gives every subject one colour and every cell a dash pattern, so
// that no two cells look alike and none is told by colour alone.
type palette struct {
	subjects map[string]int // subject id -> its place
	cells    map[string]string
}

func newPalette(cells []meshbench.CellResult) palette {
	p := palette{subjects: map[string]int{}, cells: map[string]string{}}
	used := map[int]int{}
	for _, c := range cells {
		i, ok := p.subjects[c.Subject.ID]
		if !ok {
			i = len(p.subjects)
			p.subjects[c.Subject.ID] = i
		}
		color := i % paletteSize
		p.cells[c.ID] = "s" + strconv.Itoa(color) + " d" + strconv.Itoa(used[color]%dashes)
		used[color]++
	}
	return p
}

// class returns the CSS classes of a cell.
func (p palette) class(cell string) string {
	if c, ok := p.cells[cell]; ok {
		return c
	}
	return "s0 d0"
}
