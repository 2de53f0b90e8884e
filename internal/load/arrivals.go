package load

import (
	"math/rand/v2"

	"github.com/meshbench/meshbench"
)

// arrivals is a cursor on the intended start times of one worker, in
// nanoseconds after the loop's first moment. Two cursors of one Job walk
// through exactly the same times: one finds what is due, the other what has
// waited longest, so that a backlog of any length needs no memory.
type arrivals struct {
	poisson bool
	random  *rand.Rand
	mean    float64 // distance in nanoseconds, of this worker alone
	offset  float64 // of a constant stream's first arrival
	n       float64 // arrivals so far
	at      float64
}

// newArrivals returns a cursor before the first arrival. Poisson: worker i of
// n draws exponential distances at rate/n from its own stream of the seed, and
// the union of independent Poisson streams is one at the whole rate. Constant:
// every n-th arrival of the whole stream, shifted by i places.
func newArrivals(j Job) arrivals {
	period := 1e9 / float64(j.Rate)
	a := arrivals{
		poisson: j.Arrivals != meshbench.Constant,
		random:  rand.New(rand.NewPCG(j.Seed, uint64(j.WorkerIndex))),
		mean:    period * float64(j.WorkerCount),
		offset:  period * float64(j.WorkerIndex),
	}
	return a
}

// next returns the next intended start.
func (a *arrivals) next() int64 {
	if a.poisson {
		a.at += a.random.ExpFloat64() * a.mean
	} else {
		a.at = a.offset + a.n*a.mean // multiplied, not added up: no drift
	}
	a.n++
	return int64(a.at)
}
