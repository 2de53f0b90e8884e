package analysis

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/meshbench/meshbench"
)

// block is one trial of every cell, as far as they were measured.
type block struct {
	sitting, number int
	trials          map[string]*meshbench.Trial // by cell
}

// invalid returns the reasons of the block's invalid trials, each once.
func (b *block) invalid() []meshbench.Reason {
	var out []meshbench.Reason
	for _, cell := range sortedKeys(b.trials) {
		t := b.trials[cell]
		if t.Verdict.Status != meshbench.InvalidTest {
			continue
		}
		reasons := t.Verdict.Reasons
		if len(reasons) == 0 {
			reasons = []meshbench.Reason{{Code: "invalid", Message: "the trial is invalid"}}
		}
		for _, r := range reasons {
			r.Message = cell + ": " + r.Message
			if !slices.Contains(out, r) {
				out = append(out, r)
			}
		}
	}
	return out
}

// selectBlocks sorts trials into blocks and returns those that count, in order of
// sitting and block, those that were left out, and how many blocks there were
// in all. A block with an invalid trial does not count, and neither does one
// that lacks cells which its repeat has; the repeat takes its place unless it
// has an invalid trial itself. That a cell is missing everywhere (it did not
// come up, or the run ended) leaves the block's other cells as they are.
func selectBlocks(trials []meshbench.Trial) (counted []block, out []meshbench.LeftOut, total int) {
	type key struct{ sitting, block int }
	var order []key
	first, again := map[key]*block{}, map[key]*block{}
	for i := range trials {
		t := &trials[i]
		k := key{t.Sitting, t.Block}
		if first[k] == nil && again[k] == nil {
			order = append(order, k)
		}
		into := first
		if t.Repeat {
			into = again
		}
		if into[k] == nil {
			into[k] = &block{k.sitting, k.block, map[string]*meshbench.Trial{}}
		}
		into[k].trials[t.Cell] = t
	}
	slices.SortStableFunc(order, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.sitting, b.sitting), cmp.Compare(a.block, b.block))
	})
	for _, k := range order {
		original, repeat := first[k], again[k]
		if original == nil {
			original = &block{k.sitting, k.block, nil}
		}
		reasons := original.invalid()
		fits := repeat != nil && len(repeat.invalid()) == 0 && len(repeat.trials) > 0
		switch {
		case fits && len(reasons) == 0 && len(repeat.trials) > len(original.trials):
			reasons = []meshbench.Reason{{Code: "incomplete", Message: fmt.Sprintf("%d of its cells could not be measured, and could when it was repeated", len(repeat.trials)-len(original.trials))}}
			fallthrough
		case fits && len(reasons) > 0:
			counted = append(counted, *repeat)
			out = append(out, meshbench.LeftOut{Sitting: k.sitting, Block: k.block, Repeated: true, Reasons: reasons})
		case len(reasons) > 0:
			if repeat != nil {
				for _, r := range repeat.invalid() {
					r.Message = "repeated: " + r.Message
					reasons = append(reasons, r)
				}
			}
			out = append(out, meshbench.LeftOut{Sitting: k.sitting, Block: k.block, Reasons: reasons})
		case len(original.trials) > 0:
			counted = append(counted, *original)
		}
	}
	return counted, out, len(order)
}

// trialsOf returns the trials of a cell that count.
func trialsOf(blocks []block, cell string) []*meshbench.Trial {
	var out []*meshbench.Trial
	for _, b := range blocks {
		if t := b.trials[cell]; t != nil {
			out = append(out, t)
		}
	}
	return out
}
