package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ReadStat reads /proc/PID/stat. The error is fs.ErrNotExist for a process
// that does not exist.
func ReadStat(pid int) (Stat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, err
	}
	return ParseStat(text)
}

// Alive tells whether the process still runs: it exists, it is the same one,
// and it is no zombie.
func (id Identity) Alive() bool {
	s, err := ReadStat(id.PID)
	return err == nil && s.Identity == id && !s.Dead()
}

// Processes reads every process that can be seen, zombies included.
func Processes() ([]Stat, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return nil, err
	}
	var out []Stat
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, err := ReadStat(pid); err == nil { // else it has ended meanwhile
			out = append(out, s)
		}
	}
	return out, nil
}

// Tree returns the descendants of a process among all, children before their
// own children; root is not among them.
func Tree(all []Stat, root int) []Stat {
	children := map[int][]Stat{}
	for _, s := range all {
		children[s.Parent] = append(children[s.Parent], s)
	}
	var out []Stat
	seen := map[int]bool{root: true}
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		for _, c := range children[queue[0]] {
			if !seen[c.PID] { // the list was not read in one instant: it may hold a ring
				seen[c.PID] = true
				out = append(out, c)
				queue = append(queue, c.PID)
			}
		}
	}
	return out
}

// Descendants returns the ids of the living descendants of a process from
// /proc/PID/task/TID/children, which costs far less than reading every
// process (and needs CONFIG_PROC_CHILDREN; without it the list is had from
// all processes).
func Descendants(pid int) []int {
	out, ok := appendChildren(nil, pid)
	if !ok {
		all, err := Processes()
		if err != nil {
			return nil
		}
		for _, s := range Tree(all, pid) {
			out = append(out, s.PID)
		}
		return out
	}
	for i := 0; i < len(out) && len(out) < 1<<16; i++ {
		out, _ = appendChildren(out, out[i])
	}
	return out
}

// appendChildren reports false where the kernel keeps no such list.
func appendChildren(out []int, pid int) ([]int, bool) {
	base := "/proc/" + strconv.Itoa(pid) + "/task"
	dir, err := os.Open(base)
	if err != nil {
		return out, true // it has ended
	}
	threads, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return out, true
	}
	read := 0
	for _, t := range threads {
		text, err := os.ReadFile(base + "/" + t + "/children")
		if err != nil {
			continue
		}
		read++
		for _, word := range bytes.Fields(text) {
			if child, err := strconv.Atoi(string(word)); err == nil {
				out = append(out, child)
			}
		}
	}
	if read == 0 {
		_, err := os.Stat("/proc/self/task/" + strconv.Itoa(unix.Gettid()) + "/children")
		return out, err == nil
	}
	return out, true
}

// CPUClock reads the CPU clock of a process in nanoseconds: all of its
// threads since it started, ended ones included, its children not. The
// clock's id is made from the process id as clock_getcpuclockid(3) does:
// (~pid << 3) | CPUCLOCK_SCHED.
func CPUClock(pid int) (uint64, error) {
	const cpuClockSched = 2
	var t unix.Timespec
	if pid <= 0 || pid >= 1<<28 { // 0 would be our own; the id has 29 bits for it
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, unix.ESRCH)
	}
	if err := unix.ClockGettime(int32(^pid<<3|cpuClockSched), &t); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return uint64(t.Nano()), nil
}

// Memory reads RssAnon and RssFile of a process in bytes.
func Memory(pid int) (anon, file uint64, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, 0, err
	}
	anon, file = parseMemory(text)
	return anon, file, nil
}

// BootID names the running boot of the machine.
func BootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(text)), err
}

// Listens tells whether some process accepts TCP connections on a port of
// this machine, and whether it is one of pids. Where the files of a process
// may not be looked at, it counts as one of them: better to trust than to
// accuse.
func Listens(port int, pids []int) (some, ours bool, err error) {
	return listens("/proc/net", port, pids)
}

// ListensBeside is Listens in the network namespace of the last process, of
// at least one.
func ListensBeside(port int, pids []int) (some, ours bool, err error) {
	return listens("/proc/"+strconv.Itoa(pids[len(pids)-1])+"/net", port, pids)
}

func listens(network string, port int, pids []int) (some, ours bool, err error) {
	sockets := map[string]bool{}
	for _, table := range []string{network + "/tcp", network + "/tcp6"} {
		text, err := os.ReadFile(table)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return false, false, err
		}
		for _, inode := range parseListeners(text, port) {
			sockets["socket:["+inode+"]"] = true
		}
	}
	if len(sockets) == 0 {
		return false, false, nil
	}
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		files, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrPermission) {
			return true, true, nil
		}
		for _, f := range files {
			if link, err := os.Readlink(dir + "/" + f.Name()); err == nil && sockets[link] {
				return true, true, nil
			}
		}
	}
	return true, false, nil
}

// HoldsPipe tells whether the standard output or standard error of a process
// is one of some pipes, named by their inodes.
func HoldsPipe(pid int, inodes []uint64) bool {
	if len(inodes) == 0 {
		return false
	}
	for _, fd := range []string{"1", "2"} {
		link, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/" + fd)
		if err != nil {
			continue
		}
		number, isPipe := strings.CutPrefix(strings.TrimSuffix(link, "]"), "pipe:[")
		if n, err := strconv.ParseUint(number, 10, 64); isPipe && err == nil && slices.Contains(inodes, n) {
			return true
		}
	}
	return false
}
