package telemetry

import (
	"sync"
	"time"
)

// lookForDescendants is how often a Meter looks for new descendants: the most
// costly part of a reading. What one used before it was found is not lost:
// its clock began with it, and if it has ended it is in the ticks of whoever
// waited for it.
const lookForDescendants = time.Second

// Meter reads one process with its descendants. It is safe for concurrent
// use.
//
// The sum is the process's clock, that of each living descendant, and what
// ended children left to those who waited for them. A child that ended with
// no one waiting for it is lost from the sum, which then stands still rather
// than falls. User and system share the sum as the ticks of /proc/PID/stat
// do: the kernel knows the sum to the nanosecond, the shares to 10 ms.
type Meter struct {
	id Identity

	mu     sync.Mutex
	last   Reading
	below  []Identity // descendants when they were last looked for
	looked time.Time
}

// NewMeter returns the meter of a process.
func NewMeter(id Identity) *Meter { return &Meter{id: id} }

// Read reads the clocks now. Of a process that has ended it returns the last
// reading with Alive false and no memory.
func (m *Meter) Read() Reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	clock, err := CPUClock(m.id.PID)
	s, errStat := ReadStat(m.id.PID)
	if errStat != nil || s.Identity != m.id {
		m.last.Alive, m.last.AnonBytes, m.last.FileBytes = false, 0, 0
		return m.last
	}
	if err != nil { // a zombie has no clock, but its ticks
		clock = (s.User + s.System) * nanosPerTick
	}
	sum := clock + (s.ChildUser+s.ChildSystem)*nanosPerTick
	user, system := s.User+s.ChildUser, s.System+s.ChildSystem
	anon, file, _ := Memory(m.id.PID) // none left: it has just ended
	for _, id := range m.descendants() {
		clock, err := CPUClock(id.PID)
		s, errStat := ReadStat(id.PID)
		if err != nil || errStat != nil || s.Identity != id {
			continue
		}
		sum += clock + (s.ChildUser+s.ChildSystem)*nanosPerTick
		user += s.User + s.ChildUser
		system += s.System + s.ChildSystem
		a, f, _ := Memory(id.PID)
		anon += a
		file += f
	}
	m.last = split(m.last, sum, user, system)
	m.last.Alive, m.last.AnonBytes, m.last.FileBytes = !s.Dead(), anon, file
	return m.last
}

// descendants are those found a moment ago at most; mu is held.
func (m *Meter) descendants() []Identity {
	if time.Since(m.looked) < lookForDescendants {
		return m.below
	}
	m.below = m.below[:0]
	for _, pid := range Descendants(m.id.PID) {
		if s, err := ReadStat(pid); err == nil {
			m.below = append(m.below, s.Identity)
		}
	}
	m.looked = time.Now()
	return m.below
}
