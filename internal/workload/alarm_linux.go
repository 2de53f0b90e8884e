package workload

import (
	"context"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// alarms wait for a time without burning CPU. Go's own timers are as coarse
// as the milliseconds of epoll_wait; the kernel's timers (timerfd_create(2))
// wake up to the microsecond.
type alarms struct {
	mu   sync.Mutex
	free []*alarm
	over bool
}

// alarm is a timer of the kernel; the file is its descriptor, read through
// Go's network poller.
type alarm struct {
	fd   int
	file *os.File
}

// coarse is from where on a millisecond does not matter.
const coarse = 200 * time.Millisecond

// wait returns when the time is over; long waits also when ctx ends.
func (a *alarms) wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	var timer *alarm
	if d < coarse {
		timer = a.take()
	}
	if timer == nil {
		pause(ctx, d)
		return
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	var fired [8]byte
	if err := unix.TimerfdSettime(timer.fd, 0, &spec, nil); err == nil {
		_, err = timer.file.Read(fired[:])
		if err == nil {
			a.give(timer)
			return
		}
	}
	timer.file.Close()
}

// take returns an alarm; nil where the kernel gives none (too many files).
func (a *alarms) take() *alarm {
	a.mu.Lock()
	if n := len(a.free); n > 0 {
		timer := a.free[n-1]
		a.free = a.free[:n-1]
		a.mu.Unlock()
		return timer
	}
	a.mu.Unlock()
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil
	}
	return &alarm{fd: fd, file: os.NewFile(uintptr(fd), "timer")}
}

func (a *alarms) give(timer *alarm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		timer.file.Close()
		return
	}
	a.free = append(a.free, timer)
}

func (a *alarms) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	for _, timer := range a.free {
		timer.file.Close()
	}
	a.free = nil
}
