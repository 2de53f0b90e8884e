package telemetry

import "sync"

// Meter reads one process with its descendants. It is safe for concurrent
// use.
//
// The sum is the process's clock, that of each living descendant, and what
// ended children left to those who waited for them. A child that ended with
// no one waiting for it is lost from the sum, which then stands still rather
// than falls. User and system share the sum as the ticks of /proc/PID/stat
// do: the kernel knows the sum to the nanosecond, the shares to 10 ms.
type Meter struct {
	id   Identity
	mu   sync.Mutex
	last Reading
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
	for _, pid := range Descendants(m.id.PID) {
		clock, err := CPUClock(pid)
		s, errStat := ReadStat(pid)
		if err != nil || errStat != nil {
			continue
		}
		sum += clock + (s.ChildUser+s.ChildSystem)*nanosPerTick
		user += s.User + s.ChildUser
		system += s.System + s.ChildSystem
		a, f, _ := Memory(pid)
		anon += a
		file += f
	}
	m.last = split(m.last, sum, user, system)
	m.last.Alive, m.last.AnonBytes, m.last.FileBytes = !s.Dead(), anon, file
	return m.last
}
