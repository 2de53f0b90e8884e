package telemetry

import (
	"bytes"
	"errors"
	"strconv"
)

// Ticks is the unit of times in /proc/PID/stat and /proc/stat: USER_HZ, which
// is 100 per second in the interface of every Linux architecture that Go
// knows (see proc(5), sysconf(_SC_CLK_TCK)).
const Ticks = 100

const nanosPerTick = 1_000_000_000 / Ticks

// Identity names one process for good: a process id is used again, a process
// id with its start time is not (within one boot).
type Identity struct {
	PID        int    `json:"pid"`
	StartTicks uint64 `json:"start_ticks"` // after boot, in ticks: field 22 of /proc/PID/stat
}

// Stat is the part of /proc/PID/stat that tells who a process is, whose child
// it is, and its times. Times are in ticks.
type Stat struct {
	Identity
	Name                   string // the program's, at most 15 bytes
	State                  byte   // R, S, D, T, Z, ...
	Parent, Group, Session int
	User, System           uint64 // of all its threads, ended ones included
	ChildUser, ChildSystem uint64 // of children that ended and were waited for
}

// Dead tells that the process has ended and waits to be collected.
func (s Stat) Dead() bool { return s.State == 'Z' || s.State == 'X' }

var errStat = errors.New("malformed /proc/PID/stat")

// ParseStat reads the text of /proc/PID/stat as proc(5) describes it. The
// program's name stands in parentheses and may contain anything, closing
// parentheses included, so the last one ends it.
func ParseStat(text []byte) (Stat, error) {
	var s Stat
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 2 || end < open || end+2 > len(text) {
		return Stat{}, errStat
	}
	pid, err := strconv.Atoi(string(text[:open-1]))
	if err != nil || pid <= 0 {
		return Stat{}, errStat
	}
	s.PID, s.Name = pid, string(text[open+1:end])
	fields := bytes.Fields(text[end+1:])
	// fields[0] is field 3 of the manual page.
	if len(fields) < 20 || len(fields[0]) != 1 {
		return Stat{}, errStat
	}
	s.State = fields[0][0]
	for i, into := range map[int]*int{4: &s.Parent, 5: &s.Group, 6: &s.Session} {
		if *into, err = strconv.Atoi(string(fields[i-3])); err != nil {
			return Stat{}, errStat
		}
	}
	for i, into := range map[int]*uint64{
		14: &s.User, 15: &s.System, 16: &s.ChildUser, 17: &s.ChildSystem, 22: &s.StartTicks,
	} {
		if *into, err = strconv.ParseUint(string(fields[i-3]), 10, 64); err != nil {
			return Stat{}, errStat
		}
	}
	return s, nil
}

// parseMemory reads RssAnon and RssFile, in bytes, from /proc/PID/status. A
// process that has ended has neither.
func parseMemory(text []byte) (anon, file uint64) {
	for _, f := range []struct {
		key  string
		into *uint64
	}{{"\nRssAnon:", &anon}, {"\nRssFile:", &file}} {
		_, rest, ok := bytes.Cut(text, []byte(f.key))
		if !ok {
			continue
		}
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		words := bytes.Fields(line)
		if len(words) == 0 {
			continue
		}
		if kib, err := strconv.ParseUint(string(words[0]), 10, 53); err == nil {
			*f.into = kib << 10
		}
	}
	return anon, file
}

// ParseCPUList reads a list of CPUs as the kernel writes it: "0-3,5". An
// empty text is an empty list.
func ParseCPUList(text string) ([]int, error) {
	var out []int
	text = string(bytes.TrimSpace([]byte(text)))
	if text == "" {
		return nil, nil
	}
	for _, part := range bytes.Split([]byte(text), []byte(",")) {
		low, high, span := bytes.Cut(part, []byte("-"))
		a, err := strconv.Atoi(string(low))
		if err != nil || a < 0 {
			return nil, errors.New("malformed list of CPUs: " + strconv.Quote(text))
		}
		b := a
		if span {
			b, err = strconv.Atoi(string(high))
			// No machine has more; a longer span is a mistake, not a list.
			if err != nil || b < a || b > 1<<16 {
				return nil, errors.New("malformed list of CPUs: " + strconv.Quote(text))
			}
		}
		for ; a <= b; a++ {
			out = append(out, a)
		}
	}
	return out, nil
}

// parseListeners returns the inodes of the sockets that listen on a port, out
// of the text of /proc/net/tcp or tcp6 (proc(5)): columns in hexadecimal, the
// local address the second, the state the fourth, the inode the tenth.
func parseListeners(text []byte, port int) []string {
	const listen = "0A"
	var out []string
	for _, line := range bytes.Split(text, []byte("\n")) {
		f := bytes.Fields(line)
		if len(f) < 10 || string(f[3]) != listen {
			continue
		}
		_, hex, _ := bytes.Cut(f[1], []byte(":"))
		if n, err := strconv.ParseUint(string(hex), 16, 16); err == nil && int(n) == port {
			out = append(out, string(f[9]))
		}
	}
	return out
}
