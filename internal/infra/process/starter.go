package process

import (
	"runtime"
	"sync"
)

// Starter is one operating-system thread that starts programs. The kernel
// binds a parent-death signal to the thread that forked (prctl(2),
// PR_SET_PDEATHSIG), and some programs ask for one themselves: Envoy does. So
// whatever is started must be started by a thread that lives on, which no
// thread of Go's pool promises.
//
// The thread also carries the CPU affinity that a child shall have: the child
// inherits it at the fork, before its first instruction.
type Starter struct {
	jobs chan func()
	done chan struct{}
	once sync.Once
}

// NewStarter starts the thread. Close ends it, and with it whatever was
// started with a parent-death signal.
func NewStarter() *Starter {
	s := &Starter{jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		for {
			select {
			case job := <-s.jobs:
				job()
			case <-s.done:
				return
			}
		}
	}()
	return s
}

// Run calls start on the thread while the thread may run on the given CPUs
// only; an empty list leaves it where it is. It returns start's error, or why
// the CPUs could not be had (start is then not called).
func (s *Starter) Run(cpus []int, start func() error) error {
	result := make(chan error, 1)
	job := func() {
		if len(cpus) == 0 {
			result <- start()
			return
		}
		restore, err := pin(cpus)
		if err != nil {
			result <- err
			return
		}
		err = start()
		restore()
		result <- err
	}
	select {
	case s.jobs <- job:
		return <-result
	case <-s.done:
		return errClosed
	}
}

// Close ends the thread.
func (s *Starter) Close() { s.once.Do(func() { close(s.done) }) }
