package load

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench"
)

const (
	// connectTime is how long a loop waits for its first connections before
	// it begins without those that are missing.
	connectTime = 2 * time.Second
	// flushTime is for how long the last lines wait for their reader.
	flushTime = 10 * time.Second
)

// Engine runs one Job once.
type Engine struct {
	loop     *loop
	control  control
	cpu      int // of the loop; -1: any
	sender   *sender
	calibre  time.Duration
	gaps     []int64
	cpuStart int64
}

// NewEngine prepares a Job: it validates it, resolves the target's name and
// makes everything that the loop needs. The ticks will be written to out, a
// pipe or socket, as messages numbered from seq. The error's code is invalid,
// not_found (the name does not exist) or unavailable.
func NewEngine(ctx context.Context, job Job, out *os.File, seq uint64) (*Engine, error) {
	cpuStart := processCPU()
	if err := job.Validate(); err != nil {
		return nil, err
	}
	to, err := job.resolve(ctx)
	if err != nil {
		return nil, err
	}
	if free := descriptors() - 16; job.Connections > free {
		return nil, meshbench.Errorf(meshbench.Invalid, "%d connections need more open files than this process may have", job.Connections).
			WithHint("raise the limit (ulimit -n %d) or use at most %d connections", job.Connections+64, max(free, 1))
	}
	fd := int(out.Fd())
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "make an epoll: %w", err)
	}
	e := &Engine{cpu: -1, sender: newSender(seq), calibre: job.Calibration.Std(), gaps: make([]int64, 0, gapsMost), cpuStart: cpuStart}
	if n := len(job.CPUs); n > 0 {
		e.cpu = job.CPUs[job.WorkerIndex%n]
	}
	l := &loop{
		job: job, request: job.request(), address: sockaddr(to), control: &e.control,
		base: time.Now(), epoll: epoll, out: fd,
		spin: cpuCount() > 1, alone: runtime.NumCPU() == 1, closed: job.Rate.IsMax(), head: job.Request.Method == "HEAD",
		slots:  make([]slot, job.Connections),
		window: new(window), spare: new(window), sender: e.sender,
	}
	for _, q := range []*list{&l.idle, &l.down, &l.opening, &l.busy} {
		q.first, q.last = -1, -1
	}
	for i := range l.slots {
		l.slots[i].fd = -1
		l.down.push(l.slots, int32(i))
	}
	for status := range l.want {
		l.want[status] = status < 400 && len(job.Assertions) == 0
	}
	for i, a := range job.Assertions { // all must hold: two different ones never do
		l.want[a.Status] = !slices.ContainsFunc(job.Assertions[:i], func(o meshbench.Assertion) bool { return o.Status != a.Status })
		if !l.want[a.Status] {
			clear(l.want[:])
			break
		}
	}
	if !l.closed {
		l.due, l.queue = newArrivals(job), newArrivals(job)
		l.law = law{poisson: l.due.poisson, mean: l.due.mean}
	}
	e.loop = l
	return e, nil
}

// resolve returns where to connect to.
func (j Job) resolve(ctx context.Context) (netip.AddrPort, error) {
	if j.Address != "" {
		return netip.ParseAddrPort(j.Address)
	}
	u, err := j.target()
	if err != nil {
		return netip.AddrPort{}, err
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	host := u.Hostname()
	if a, err := netip.ParseAddrPort(net.JoinHostPort(host, port)); err == nil {
		return a, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(found) == 0 {
		return netip.AddrPort{}, meshbench.Errorf(meshbench.NotFound, "the address of %s cannot be found: %w", host, err).
			WithHint("check the name, or give the address itself")
	}
	// IPv4 first where there is both: a name such as localhost often has an
	// IPv6 address at which nobody listens.
	slices.SortStableFunc(found, func(a, b netip.Addr) int {
		switch {
		case a.Unmap().Is4() == b.Unmap().Is4():
			return 0
		case a.Unmap().Is4():
			return -1
		}
		return 1
	})
	return netip.ParseAddrPort(net.JoinHostPort(strings.TrimPrefix(found[0].String(), "::ffff:"), port))
}

// Stop ends the load now: what is in flight is unfinished. It may be called
// at any time and from anywhere.
func (e *Engine) Stop() { e.control.stop.Store(true) }

// Lease ends the load at t, unless a later call moves t on.
func (e *Engine) Lease(t time.Time) { e.control.lease.Store(t.UnixNano()) }

// Run calibrates, calls ready, and offers the load from the moment that ready
// returns (or now, if that is over) to the last answer; then it calibrates
// again. ready reports false to give up. The second result is the number of
// the next message.
func (e *Engine) Run(ready func() (time.Time, bool)) (Summary, uint64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l := e.loop
	defer func() { _ = unix.Close(l.epoll) }()
	if e.cpu >= 0 {
		restore, err := bind(e.cpu)
		if err != nil {
			return Summary{}, e.sender.seq, meshbench.Errorf(meshbench.Invalid, "%w", err).WithHint("choose a CPU that this process may use")
		}
		defer restore()
	}
	exactTimers()
	blockPreemption(true)
	defer blockPreemption(false)

	s := Summary{Closed: l.closed, Poisson: l.due.poisson}
	spun := threadCPU()
	e.calibrate(&s)
	spun = threadCPU() - spun
	at, ok := ready()
	if !ok {
		return s, e.sender.seq, meshbench.Errorf(meshbench.Unavailable, "the load was given up before it began")
	}
	l.preconnect()
	s.SkewNanos = l.await(at)
	collections := collections()
	before := look(e.cpu)
	l.run()
	after := look(e.cpu)
	s.Collections = collectionsSince(collections)
	l.flush(flushTime)

	s.Stopped = l.control.stop.Load() || l.broken || l.end-l.warm < int64(l.job.Duration)
	s.CountedNanos = max(l.end-l.warm, 0)
	s.LoopNanos = l.now - l.start
	s.LoopCPUNanos = after.thread - before.thread
	// Work and spinning are told apart by the clock on the wall. Where the core
	// was elsewhere meanwhile, both had less of it, and in proportion.
	s.UsefulNanos = l.useful
	if wall := l.useful + l.spun; wall > s.LoopCPUNanos {
		s.UsefulNanos = int64(float64(s.LoopCPUNanos) * float64(l.useful) / float64(wall))
	}
	s.Switches = after.switches - before.switches
	s.DelayNanos = -1
	if before.delay >= 0 && after.delay >= 0 {
		s.DelayNanos = after.delay - before.delay
	}
	s.ThrottledNanos = after.throttle - before.throttle
	if all := after.all - before.all; all > 0 && after.all > before.all {
		s.StealShare = float64(after.steal-before.steal) / float64(all)
	}
	s.WorstNanos = l.worst
	s.LawDistance, s.LawDistances = l.law.distance(), l.law.n
	again := threadCPU()
	if !s.Stopped {
		e.calibrate(&s)
	}
	spun += threadCPU() - again
	s.SpinNanos = s.LoopCPUNanos - s.UsefulNanos + spun
	s.CPUNanos = processCPU() - e.cpuStart
	s.PeakMemoryBytes = peakMemory()
	return s, e.sender.seq, nil
}

// calibrate reads the clock, and nothing else, for a while.
func (e *Engine) calibrate(s *Summary) {
	if e.calibre <= 0 {
		return
	}
	c := Calibration{}
	e.gaps = e.gaps[:0]
	start := time.Now()
	var last, safe int64
	pin()
	for last < int64(e.calibre) && !e.control.stop.Load() {
		now := int64(time.Since(start))
		if gap := now - last; gap >= gapLeast {
			if len(e.gaps) < cap(e.gaps) {
				e.gaps = append(e.gaps, gap)
			} else {
				c.Lost += gap
			}
		}
		if last = now; now-safe > pinTime {
			unpin()
			safepoint(e.loop.alone)
			pin()
			safe = now
			last = int64(time.Since(start)) // a safepoint is no gap
		}
	}
	unpin()
	c.Nanos = last
	c.Gaps = slices.Clone(e.gaps)
	s.Calibrations = append(s.Calibrations, c)
}

// preconnect opens the connections that are kept alive, so that the first
// requests find them.
func (l *loop) preconnect() {
	if !l.job.KeepAlive {
		return
	}
	l.clock()
	l.end = never
	for i := range l.slots {
		if !l.slots[i].bound && l.slots[i].state == slotDown {
			l.down.remove(l.slots, int32(i))
			if _, ok := l.connect(int32(i)); ok {
				l.opening.push(l.slots, int32(i))
			} else {
				l.drop(int32(i))
			}
		}
		if i%64 == 63 { // no more at once than a listener's queue holds
			l.collect(time.Millisecond)
		}
	}
	for until := l.clock() + int64(connectTime); l.opening.n > 0 && l.now < until && !l.stopped(); {
		l.collect(maxWait)
	}
}

// collect handles the events of connections without requests.
func (l *loop) collect(wait time.Duration) {
	n, errno := rawPoll(l.epoll, l.events[:], int64(wait))
	l.clock()
	if errno != 0 {
		return
	}
	for i := range n {
		l.handle(&l.events[i])
	}
}

// await waits for the first moment and returns by how much it was missed.
func (l *loop) await(at time.Time) int64 {
	for !at.IsZero() && !l.stopped() {
		left := time.Until(at)
		if left <= 0 {
			break
		}
		if left > 2*time.Millisecond {
			l.collect(min(left-time.Millisecond, maxWait))
		}
	}
	if at.IsZero() {
		return 0
	}
	return int64(time.Since(at))
}

// collections returns how many garbage collections there have been.
func collections() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumGC
}

func collectionsSince(before uint32) uint32 { return collections() - before }
