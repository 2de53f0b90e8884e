package cli

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/load"
	"github.com/meshbench/meshbench/internal/runner"
	"github.com/meshbench/meshbench/internal/runtimes"
)

// redrawEvery is how often a terminal's line is drawn again; lineEvery how
// often a pipe gets a line while nothing but time passes.
const (
	redrawEvery = 200 * time.Millisecond
	lineEvery   = 10 * time.Second
)

// progress tells people what is going on: one redrawn line on a terminal,
// plain lines elsewhere.
type progress struct {
	e     *env
	width int // 0: no terminal

	mu    sync.Mutex
	last  time.Time
	text  string // of the last plain line, without what changes all the time
	drawn bool   // a redrawn line stands on the terminal
	begin time.Time
	plan  meshbench.Plan
}

func newProgress(e *env) *progress {
	p := &progress{e: e, begin: time.Now()}
	p.width, _ = terminal(e.stderr)
	return p
}

// say writes a line that stays.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.e.quiet {
		return
	}
	p.wipe()
	fmt.Fprintf(p.e.stderr, format+"\n", args...)
	p.last = time.Now()
}

// show redraws the terminal's line, or writes a plain one where key is new or
// nothing was written for a while.
func (p *progress) show(key, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.e.quiet {
		return
	}
	now := time.Now()
	line := fmt.Sprintf(format, args...)
	if p.width == 0 {
		if key == p.text && now.Sub(p.last) < lineEvery {
			return
		}
		p.text, p.last = key, now
		fmt.Fprintln(p.e.stderr, line)
		return
	}
	if key == p.text && now.Sub(p.last) < redrawEvery {
		return
	}
	p.text, p.last = key, now
	if runes := []rune(line); len(runes) >= p.width {
		line = string(runes[:p.width-1])
	}
	fmt.Fprint(p.e.stderr, "\r\x1b[K"+line)
	p.drawn = true
}

func (p *progress) wipe() {
	if p.drawn {
		fmt.Fprint(p.e.stderr, "\r\x1b[K")
		p.drawn = false
	}
}

// end leaves the terminal clean for the result.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
}

func (p *progress) fetching(f runtimes.Progress) {
	if f.Phase == runtimes.Notice {
		p.say("%s", f)
		return
	}
	p.show("fetch "+f.Name+f.Version+string(f.Phase), "%s", f)
}

func (p *progress) waiting(holder string) {
	p.say("another run has this machine (%s), and two would disturb each other: waiting for it to end; Ctrl-C gives up", holder)
}

func (p *progress) planned(id string, plan meshbench.Plan) {
	p.say("run %s: %d trials in %d sittings, about %s", id, plan.TrialsTotal, plan.Sittings, round(plan.Estimate))
	for _, w := range plan.Warnings {
		p.say("note: %s", w.Message)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan, p.begin = plan, time.Now()
}

// left estimates the time left from the share of trials done; before the
// first one is done, from the plan.
func (p *progress) left(e runner.Event) string {
	elapsed := time.Since(p.begin)
	left := p.plan.Estimate.Std() - elapsed
	if done := e.Trial - 1; done > 0 && e.Trials > 0 {
		left = time.Duration(float64(elapsed) / float64(done) * float64(e.Trials-done))
	}
	return max(0, left).Round(time.Second).String()
}

func (p *progress) run(e runner.Event) {
	if e.Note != "" {
		p.say("sitting %d, %s: %s", e.Sitting, e.Cell, e.Note)
		return
	}
	if e.Phase == runner.Judging {
		p.show("judging", "judging")
		return
	}
	line := fmt.Sprintf("sitting %d of %d  %s %s  %s left", e.Sitting, e.Sittings, e.Phase, e.Cell, p.left(e))
	if p.width > 0 && e.Trials > 0 {
		line = bar(max(0, e.Trial-1), e.Trials) + " " + line
	}
	if e.Tick != nil {
		line += "  " + live(*e.Tick)
	}
	// A pipe gets one line for each trial, and few for what leads to it.
	p.show(fmt.Sprintf("%d %s %s %d", e.Sitting, e.Phase, e.Cell, e.Trial), "%s", line)
}

// load tells of a single job.
func (p *progress) load(job load.Job) func(load.Tick) {
	return func(t load.Tick) {
		total := job.Warmup.Std() + job.Duration.Std()
		done := min(total, time.Since(p.begin))
		line := fmt.Sprintf("%s left  %s", (total - done).Round(time.Second), live(t))
		if p.width > 0 {
			line = bar(int(done.Milliseconds()), int(total.Milliseconds())) + " " + line
		}
		p.show("load", "%s", line)
	}
}

// live tells what the last 100 ms of load were like.
func live(t load.Tick) string {
	text := fmt.Sprintf("%d requests/s  p99 %.2f ms", 10*t.Completed, float64(t.P99)/1000)
	if failed := t.Total.Errored + t.Total.TimedOut; failed > 0 {
		text += fmt.Sprintf("  %d failed", failed)
	}
	if t.Backlog > 0 {
		text += fmt.Sprintf("  %d waiting for a connection", t.Backlog)
	}
	return text
}

// bar draws how much is done in 20 columns.
func bar(done, all int) string {
	const columns = 20
	n := 0
	if all > 0 {
		n = min(columns, columns*done/all)
	}
	return "[" + strings.Repeat("█", n) + strings.Repeat("·", columns-n) + "]"
}
