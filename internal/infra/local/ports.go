package local

import (
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/meshbench/meshbench"
)

// portPicker chooses free ports of the loopback device. It keeps clear of the
// range out of which the kernel takes ports for outgoing connections
// (ip(7), ip_local_port_range): there, one of the generator's own connections
// could take a port between its choice and its use.
type portPicker struct {
	low, high int // of the choice, both included

	mu   sync.Mutex
	used map[int]bool
}

func newPortPicker() *portPicker {
	low, high := 10240, 32767
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		low, high = clearOf(string(text))
	}
	return &portPicker{low: low, high: high, used: map[int]bool{}}
}

// clearOf returns the wider of the ranges below and above the kernel's own,
// or all unprivileged ports where neither is worth having.
func clearOf(kernel string) (low, high int) {
	const lowest, highest, enough = 10240, 65535, 1000
	words := strings.Fields(kernel)
	if len(words) != 2 {
		return lowest, highest
	}
	from, errFrom := strconv.Atoi(words[0])
	to, errTo := strconv.Atoi(words[1])
	if errFrom != nil || errTo != nil || from < 1 || to < from || to > highest {
		return lowest, highest
	}
	to = max(to, lowest)
	below, above := from-lowest, highest-to
	switch {
	case below >= above && below >= enough:
		return lowest, from - 1
	case above >= enough:
		return to + 1, highest
	}
	return lowest, highest
}

// pick returns a port that nobody listens on and that was not picked before.
func (p *portPicker) pick() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 500 {
		n := p.low + rand.IntN(p.high-p.low+1)
		if p.used[n] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(n)))
		if err != nil {
			continue
		}
		l.Close()
		p.used[n] = true
		return n, nil
	}
	return 0, meshbench.Errorf(meshbench.Unavailable, "no free port was found on %s between %d and %d", loopback, p.low, p.high).
		WithHint("end what holds so many ports, or widen the range: see net.ipv4.ip_local_port_range")
}

// free gives ports back.
func (p *portPicker) free(ports map[meshbench.PortRef]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range ports {
		delete(p.used, n)
	}
}
