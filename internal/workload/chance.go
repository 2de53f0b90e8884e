package workload

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
)

// chance is a service's own randomness. Its seed is the service's name and
// number, so that every deployment of a workload draws the same numbers.
type chance struct {
	mu     sync.Mutex
	random *rand.Rand
}

func newChance(service string, instance int) *chance {
	h := fnv.New64a()
	h.Write([]byte(service + "/" + strconv.Itoa(instance)))
	return &chance{random: rand.New(rand.NewPCG(h.Sum64(), 1))}
}

// longestTime is where the tail of a law is cut.
const longestTime = time.Minute

// usualSigma is the lognormal law's where none is given.
const usualSigma = 0.5

// time draws from a law. The mean is the law's, before its tail is cut.
func (c *chance) time(t meshbench.ServiceTime) time.Duration {
	mean := float64(t.Mean)
	c.mu.Lock()
	switch t.Law {
	case meshbench.ExponentialTime:
		mean *= c.random.ExpFloat64()
	case meshbench.LognormalTime:
		sigma := t.Sigma
		if sigma == 0 {
			sigma = usualSigma
		}
		// exp(mu + sigma z) has the mean exp(mu + sigma^2/2).
		mean *= math.Exp(sigma*c.random.NormFloat64() - sigma*sigma/2)
	}
	c.mu.Unlock()
	return time.Duration(min(mean, float64(longestTime)))
}

// percent is true for p of 100 draws.
func (c *chance) percent(p float64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.Float64()*100 < p
}
