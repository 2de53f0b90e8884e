package load

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"runtime"
	"time"

	"github.com/meshbench/meshbench"
)

// Threads is how many threads Go must be allowed to run at a time (GOMAXPROCS)
// in a process with a loop, also where it may use one CPU: the loop never
// makes room, and somebody has to read what it sends and to tell it to stop.
const Threads = 4

// Run offers the load of a job from this very process, and calls tick, where
// it is not nil, every 100 ms from another goroutine. Measurements are better
// made in a process of its own (package worker): here, the rest of the process
// collects garbage and uses the loop's core. It raises GOMAXPROCS to Threads.
//
// Where ctx ends before the load, the result has what there is and the error
// is ctx's.
func Run(ctx context.Context, job Job, tick func(Tick)) (meshbench.LoadResult, error) {
	job = job.WithDefaults()
	if runtime.GOMAXPROCS(0) < Threads {
		runtime.GOMAXPROCS(Threads)
	}
	in, out, err := os.Pipe()
	if err != nil {
		return meshbench.LoadResult{}, meshbench.Errorf(meshbench.Unavailable, "make a pipe: %w", err)
	}
	defer in.Close()
	e, err := NewEngine(ctx, job, out, 1)
	if err != nil {
		out.Close()
		return meshbench.LoadResult{}, err
	}
	defer context.AfterFunc(ctx, e.Stop)()
	type ending struct {
		summary Summary
		err     error
	}
	ended := make(chan ending, 1)
	go func() {
		defer out.Close()
		s, _, err := e.Run(func() (time.Time, bool) { return time.Time{}, true })
		ended <- ending{s, err}
	}()
	a := NewAggregate(job)
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), MaxLine)
	var bad error
	for lines.Scan() {
		var m Message
		if bad == nil {
			bad = json.Unmarshal(lines.Bytes(), &m)
		}
		if bad != nil || m.Tick == nil {
			continue
		}
		var t Tick
		if t, bad = a.Add(*m.Tick); bad == nil && tick != nil {
			tick(t)
		}
	}
	end := <-ended
	if err := end.err; err != nil {
		return meshbench.LoadResult{}, err
	}
	if bad == nil {
		bad = lines.Err()
	}
	if bad != nil {
		return meshbench.LoadResult{}, meshbench.Errorf(meshbench.Internal, "read the generator's ticks: %w", bad)
	}
	r, err := a.Result(end.summary)
	if err == nil {
		err = ctx.Err()
	}
	return r, err
}
