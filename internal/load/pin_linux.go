package load

import (
	"syscall"
	"time"
	_ "unsafe" // go:linkname

	"golang.org/x/sys/unix"
)

// While the loop runs, Go's scheduler must not take its thread away: its
// monitor asks every goroutine that has run for 10 ms to make room, and giving
// in costs two thread switches (10 to 50 us), a hundred times a second. pin
// refuses such requests as sync.Pool and the runtime itself do for a moment.
// (runtime.procPin is one of the functions that the Go project promises not
// to change or remove: go.dev/issue/67401.) A pinned loop also keeps a garbage
// collection waiting; so it unpins itself every pinTime for a safepoint.

//go:linkname pin runtime.procPin
func pin() int

//go:linkname unpin runtime.procUnpin
func unpin()

// safeTime is how long a safepoint lasts: a collector that wants to look at
// the loop's stack asks about once a microsecond, and must be heard.
const safeTime = 3 * time.Microsecond

// safepoint lets Go's runtime have its way with an unpinned loop: a world that
// is to be stopped stops in the ordinary system call, a stack that is to be
// looked at is met there or in one of the calls after it. alone: the process
// has one CPU, on which nobody else runs while the loop does.
func safepoint(alone bool) {
	call := uintptr(unix.SYS_GETTID)
	if alone {
		call = unix.SYS_SCHED_YIELD
	}
	_, _, _ = syscall.Syscall(call, 0, 0, 0)
	for start := time.Now(); time.Since(start) < safeTime; {
		heard()
	}
}

// heard begins, as every function that calls another, by looking whether its
// goroutine is to be preempted.
//
//go:noinline
func heard() { unheard() }

//go:noinline
func unheard() {}
