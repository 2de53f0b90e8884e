package local

import (
	"encoding/json"
	"io"
	"sync"
)

// queue holds replies until they are written. Putting never blocks, so one
// who does not listen, or is dead, cannot hold up the supervisor.
type queue struct {
	mu    sync.Mutex
	wake  sync.Cond
	items []reply
}

func newQueue() *queue {
	q := &queue{}
	q.wake.L = &q.mu
	return q
}

func (q *queue) put(r reply) {
	q.mu.Lock()
	q.items = append(q.items, r)
	q.mu.Unlock()
	q.wake.Signal()
}

// drain writes what is put for as long as the process lives.
func (q *queue) drain(out io.Writer) {
	encoder := json.NewEncoder(out)
	for {
		q.mu.Lock()
		for len(q.items) == 0 {
			q.wake.Wait()
		}
		items := q.items
		q.items = nil
		q.mu.Unlock()
		for _, r := range items {
			_ = encoder.Encode(r) // nobody listens: nothing to do about it
		}
	}
}
