package load

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// spinBefore is how long before the next arrival a loop stops waiting in
	// the kernel: longer than a virtual CPU takes to wake up. Usually that is
	// 60 us; but one that has gone idle comes back up to 2 ms late now and
	// then, which at 500 requests/s made the generator's p99 late by 100 us
	// and more, and by 20 us when it stays awake.
	spinBefore = int64(2000 * time.Microsecond)
	// spinAfter is how long after the last event a loop that has requests in
	// flight goes on spinning for their answers, so that waking up is no part
	// of a latency. Later, a wake-up is a small part of it.
	spinAfter = int64(20 * time.Millisecond)
	// pinTime is how long a loop keeps its thread to itself at a stretch.
	pinTime = int64(20 * time.Millisecond)
	// stepRoom is how far away the next arrival must be for a step of the
	// sender; stepLate is how old a line becomes before it goes out anyway.
	stepRoom = int64(12 * time.Microsecond)
	stepLate = int64(50 * time.Millisecond)
	// burst is how many arrivals are taken up before events are looked at.
	burst = 64
	// backoffFirst and backoffMost are the pauses of a closed loop after a
	// connection that failed. An open loop needs none: its plan sets the pace.
	backoffFirst = int64(time.Millisecond)
	backoffMost  = int64(100 * time.Millisecond)
	// memoryOfLateness is for how many waiting requests the loop remembers
	// how late it took them up; of older ones it takes the intended start.
	memoryOfLateness = 1 << 14

	receiveSize   = 128 << 10
	eventsAtATime = 256
	never         = int64(math.MaxInt64)
)

// control is what others tell a running loop.
type control struct {
	stop  atomic.Bool
	lease atomic.Int64 // unix nanoseconds at which the load ends; 0: never
}

// loop is the engine: one thread, one epoll, all connections of a worker.
// Times are nanoseconds since base.
type loop struct {
	job     Job
	request []byte
	address []byte
	control *control
	base    time.Time
	epoll   int
	out     int // descriptor of the stream
	spin    bool
	alone   bool // this process has one CPU
	closed  bool // closed loop
	head    bool
	want    [1000]bool // statuses that complete

	slots                     []slot
	idle, down, opening, busy list // open and free; without connection; being set up for nobody; with a request, by intended start

	start, warm, end, deadline int64 // first moment; counting begins; arrivals end; waiting ends
	due                        arrivals
	next                       int64 // intended start of the next arrival; never: none left
	queue                      arrivals
	oldest                     int64  // intended start of the request that has waited longest, where backlog > 0
	backlog                    int64  // taken up and without a connection
	taken                      uint64 // taken up so far
	late                       [memoryOfLateness]uint32

	now        int64 // the latest reading of the clock
	active     int64 // when the last event came
	retryCheck int64
	window     *window
	spare      *window // leaving, or empty
	quiet      bool    // the last poll found nothing
	windowAt   int64   // when the window began
	tickAt     int64   // when it is to leave
	sender     *sender
	broken     bool // nobody reads the stream any more
	begun      bool // the first moment has come: there is a window to count in

	useful   int64 // nanoseconds of work, by the clock on the wall
	spun     int64 // and of polling in vain
	worst    int64 // the longest that an iteration took beyond its wait
	law      law
	previous int64 // when the last counted arrival was taken up

	events [eventsAtATime]event
	buffer [receiveSize]byte
}

func (l *loop) clock() int64 {
	l.now = int64(time.Since(l.base))
	return l.now
}

// stopped tells whether somebody wants the load to end now.
func (l *loop) stopped() bool {
	if l.control.stop.Load() || l.broken {
		return true
	}
	lease := l.control.lease.Load()
	return lease != 0 && l.base.UnixNano()+l.now > lease
}

// run offers the load, from the first moment to the last answer.
func (l *loop) run() {
	l.begun = true
	l.start = l.clock()
	l.warm = l.start + int64(l.job.Warmup)
	l.end = l.warm + int64(l.job.Duration)
	l.deadline = l.end + int64(l.job.Drain)
	l.windowAt, l.active, l.previous = l.start, l.start, -1
	l.openWindow()
	l.next = never
	if !l.closed {
		l.advance()
		l.oldest = l.start + l.queue.next()
	}
	safeAt := l.start + pinTime
	pin()
	for !l.done() {
		if l.now >= safeAt {
			unpin()
			safepoint(l.alone)
			pin()
			safeAt = l.clock() + pinTime
		}
		l.turn()
	}
	unpin()
	l.account()
}

// done tells whether all is decided, or enough has been waited for.
func (l *loop) done() bool {
	if l.now >= l.end && (l.busy.n == 0 && l.backlog == 0 && l.next == never || l.now >= l.deadline) {
		return true
	}
	if !l.stopped() {
		return false
	}
	l.end = min(l.end, l.now)
	return true
}

// turn does what is due, waits, and handles what happened.
func (l *loop) turn() {
	entered := l.now
	began := entered
	worked := l.takeUp(began)
	worked = l.expire() || worked
	if l.closed || l.backlog > 0 {
		worked = l.feed() || worked
	}
	if l.now >= l.tickAt {
		l.closeWindow()
	}
	if l.sender.busy() && (l.quiet && l.next-l.now > stepRoom || l.now-l.windowAt > stepLate) {
		l.step()
		l.clock()
		worked = true
	}
	wait := l.wait()
	before := l.now
	n, errno := rawPoll(l.epoll, l.events[:], wait)
	l.clock()
	l.quiet = errno != 0 || n == 0
	switch {
	case l.quiet:
		if worked {
			l.useful += before - began
			began = before
		}
		if wait == 0 {
			l.spun += l.now - began
		}
	default:
		l.active = l.now
		waited := l.now - before
		for i := range n {
			if l.next <= l.now {
				l.takeUp(l.now)
			}
			l.handle(&l.events[i])
		}
		l.useful += l.now - began
		if wait > 0 {
			l.useful -= waited // waiting is not work
		}
	}
	l.worst = max(l.worst, l.now-entered-wait)
}

// wait returns for how long nothing is to be done, in nanoseconds.
func (l *loop) wait() int64 {
	until := min(l.next, l.tickAt)
	if l.busy.n > 0 {
		until = min(until, l.slots[l.busy.first].intended+int64(l.job.Timeout))
	}
	if l.backlog > 0 {
		until = min(until, l.oldest+int64(l.job.Timeout))
	}
	if l.closed && l.down.n > 0 && l.now < l.end {
		until = min(until, l.retryCheck)
	}
	if l.now < l.end {
		until = min(until, l.end)
	} else {
		until = min(until, l.deadline)
	}
	wait := until - l.now
	if l.sender.busy() {
		wait = min(wait, stepRoom)
	}
	if l.spin {
		if l.busy.n > 0 && l.now-l.active < spinAfter {
			return 0
		}
		wait -= spinBefore
	}
	return min(max(wait, 0), int64(maxWait))
}

// advance moves to the next arrival.
func (l *loop) advance() {
	l.next = l.start + l.due.next()
	if l.next >= l.end {
		l.next = never
	}
}

// takeUp takes up the arrivals that are due, and reports whether any was.
func (l *loop) takeUp(now int64) bool {
	for i := 0; l.next <= now; i++ {
		if i == burst {
			return true
		}
		intended := l.next
		counted := intended >= l.warm
		late := now - intended
		l.late[l.taken%memoryOfLateness] = uint32(min(late, math.MaxUint32))
		l.taken++
		l.window.maxLate = max(l.window.maxLate, late)
		if counted {
			l.window.planned++
			l.window.record(chLateness, late)
			if l.previous >= 0 {
				l.law.add(now - l.previous)
			}
			l.previous = now
		}
		l.advance()
		if l.backlog > 0 || !l.dispatch(intended, now, counted) {
			l.backlog++
		} else {
			l.skipQueue()
		}
		now = l.clock()
		if l.next > now {
			return true
		}
	}
	return false
}

// skipQueue moves the cursor of the backlog past a request that has left it.
func (l *loop) skipQueue() { l.oldest = l.start + l.queue.next() }

// feed gives waiting requests to free connections; in a closed loop, every
// free connection its next request. It reports whether it did anything.
func (l *loop) feed() bool {
	worked := false
	if !l.closed {
		for l.backlog > 0 && l.shift() {
			worked = true
		}
		return worked
	}
	if l.now >= l.end {
		return false
	}
	for n := l.idle.n + l.opening.n; n > 0; n-- {
		l.dispatch(l.now, l.now, l.now >= l.warm)
		l.clock()
		worked = true
	}
	if l.now < l.retryCheck {
		return worked
	}
	l.retryCheck = l.now + backoffFirst
	for n := l.down.n; n > 0; n-- {
		i := l.down.first
		l.down.remove(l.slots, i)
		if l.slots[i].retryAt > l.now {
			l.down.push(l.slots, i) // looked at again in a millisecond
			continue
		}
		l.begin(i, l.now, l.now, l.now >= l.warm)
		l.clock()
		worked = true
	}
	return worked
}

// shift gives the request that has waited longest to a free connection.
func (l *loop) shift() bool {
	first := l.taken - uint64(l.backlog)
	taken := l.oldest
	if l.backlog <= memoryOfLateness {
		taken += int64(l.late[first%memoryOfLateness])
	}
	if !l.dispatch(l.oldest, taken, l.oldest >= l.warm) {
		return false
	}
	l.backlog--
	l.skipQueue()
	l.clock()
	return true
}

// expire ends the requests whose time is over, and reports whether any was.
func (l *loop) expire() bool {
	limit := l.now - int64(l.job.Timeout)
	worked := false
	for l.busy.n > 0 && l.slots[l.busy.first].intended <= limit {
		i := l.busy.first
		s := &l.slots[i]
		if s.counted {
			l.window.timedOut++
			l.window.record(chCensored, l.now-s.intended)
			l.window.bytesRead += uint64(s.received)
		}
		l.busy.remove(l.slots, i)
		s.bound = false
		l.drop(i)
		worked = true
	}
	for l.backlog > 0 && l.oldest <= limit {
		if l.oldest >= l.warm {
			l.window.timedOut++
			l.window.record(chCensored, l.now-l.oldest)
		}
		l.backlog--
		l.skipQueue()
		worked = true
	}
	return worked
}

// account decides what is still open at the end: in flight is unfinished,
// never sent because the end came is skipped. Both are censored.
func (l *loop) account() {
	for ; l.next <= l.now && l.next < l.end; l.advance() { // the end came before they were taken up
		l.taken++
		l.backlog++
		if l.next >= l.warm {
			l.window.planned++
			l.window.record(chLateness, l.now-l.next)
		}
	}
	for i := l.busy.first; i >= 0; i = l.slots[i].next {
		s := &l.slots[i]
		if !s.counted {
			continue
		}
		l.window.record(chCensored, l.now-s.intended)
		l.window.unfinished++
	}
	for ; l.backlog > 0; l.backlog-- {
		if l.oldest >= l.warm {
			l.window.skipped++
			l.window.record(chCensored, l.now-l.oldest)
		}
		l.skipQueue()
	}
	for i := range l.slots {
		if l.slots[i].state != slotDown {
			rawClose(l.slots[i].fd)
		}
	}
}

// openWindow begins the window that the loop records into.
func (l *loop) openWindow() {
	w := l.window
	w.phase = phaseMeasure
	switch {
	case l.now < l.warm:
		w.phase = phaseWarmup
	case l.now >= l.end:
		w.phase = phaseDrain
	}
	w.slot = floorDiv(l.windowAt-l.warm, slotTime)
	l.tickAt = l.warm + (w.slot+1)*slotTime
	if l.tickAt <= l.now {
		l.tickAt = l.warm + (floorDiv(l.now-l.warm, slotTime)+1)*slotTime
	}
	if l.now < l.end {
		l.tickAt = min(l.tickAt, l.end)
	}
}

// closeWindow lets the window leave, where the one before has left; else the
// window goes on for another slot.
func (l *loop) closeWindow() {
	if l.sender.busy() {
		l.tickAt += slotTime
		return
	}
	w := l.window
	w.elapsed = l.now - l.start
	w.slots = max(1, floorDiv(l.tickAt-l.warm+slotTime-1, slotTime)-w.slot)
	w.backlog, w.inFlight = l.backlog, int64(l.busy.n)
	l.window, l.spare = l.spare, w
	l.sender.begin(w)
	l.windowAt = l.tickAt
	l.openWindow()
}

// floorDiv rounds towards negative infinity.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// step does one piece of the sender's work.
func (l *loop) step() {
	if _, errno := l.sender.step(l.out); errno != 0 {
		l.broken = true
	}
}

// flush sends the last window, waiting for a slow reader as long as patience
// lasts.
func (l *loop) flush(patience time.Duration) {
	last := l.window
	last.elapsed = l.now - l.start
	last.slots = max(1, floorDiv(l.now-l.warm+slotTime-1, slotTime)-last.slot)
	until := time.Now().Add(patience)
	for !l.broken && (l.sender.busy() || last != nil) {
		if !l.sender.busy() {
			l.sender.begin(last)
			last = nil
		}
		n, errno := l.sender.step(l.out)
		switch {
		case errno != 0 || time.Now().After(until):
			l.broken = true
		case n == 0:
			waitWritable(l.out, 100*time.Millisecond)
		}
	}
}
