package process

import (
	"slices"

	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/telemetry"
)

// Place gives the generator a core of its own and the system under test the
// others, out of the CPUs that this process may use. With fewer than two CPUs
// nothing is placed, and the placement is empty.
func Place() infra.Placement { return place(usableCPUs(), telemetry.Siblings) }

func place(cpus []int, siblings func(int) []int) infra.Placement {
	if len(cpus) < 2 {
		return infra.Placement{}
	}
	generator := cpus[0]
	system := slices.Clone(cpus[1:])
	// The other thread of the generator's core would slow it down whenever it
	// works: leave it idle where enough is left without it.
	shared := siblings(generator)
	apart := slices.DeleteFunc(slices.Clone(system), func(c int) bool { return slices.Contains(shared, c) })
	if len(apart) >= 2 {
		system = apart
	}
	return infra.Placement{GeneratorCPUs: []int{generator}, SystemCPUs: system}
}
