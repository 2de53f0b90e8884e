package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench/internal/infra/process"
	"github.com/meshbench/meshbench/internal/telemetry"
)

const (
	// endGrace is between SIGTERM and SIGKILL when the pipe has closed.
	endGrace = 1500 * time.Millisecond
	// killPatience is how long what was killed may take to be gone. The kernel
	// delays it where a process hangs in a device.
	killPatience = 10 * time.Second
)

// noteAfter are the moments after the last start at which descendants are
// written into the journal. All lie within deploying and warming up: a
// supervisor at work must not disturb a trial.
var noteAfter = []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 1500 * time.Millisecond}

// Supervise is what `meshbench supervisor` runs. It starts and ends processes
// as it is told on in, tells of exits on out, and when in closes it ends
// everything that it has started, descendants included, and returns. Nothing
// but that ends it: neither ctx nor signals that a terminal or a service
// manager sends to all processes at once.
//
// It takes over the signals of the process and makes it the reaper of
// orphaned descendants (prctl(2), PR_SET_CHILD_SUBREAPER), so it is for a
// process of its own.
func Supervise(ctx context.Context, in io.Reader, out io.Writer) error {
	// Noted, not ignored: an ignored signal would stay ignored in everything
	// that is started. SIGPIPE is among them since out may be gone.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	defer signal.Stop(signals)
	// Files that whoever started us left open are nobody's business below us.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) // before Linux 5.11: they stay
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("supervisor: reaper of descendants: %w", err)
	}
	boot, namespace, err := here()
	if err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	self, err := telemetry.ReadStat(os.Getpid())
	if err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	owner, _ := telemetry.ReadStat(self.Parent) // gone already: then in is closed, too
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	defer null.Close()
	s := &supervisor{
		null:      null,
		starter:   process.NewStarter(),
		journal:   journal{BootID: boot, PIDNamespace: namespace, Owner: owner.Identity, Supervisor: self.Identity},
		processes: map[int]*supervised{},
		started:   make(chan struct{}, 1),
		replies:   newQueue(),
		networks:  map[string]*network{},
	}
	defer s.starter.Close()
	go s.replies.drain(out)
	go s.reap()
	s.serve(in)
	return s.end()
}

type supervisor struct {
	null     *os.File
	starter  *process.Starter
	stateDir string
	replies  *queue
	started  chan struct{} // a child exists: the reaper may wait
	notes    *time.Timer
	networks map[string]*network // by deployment; of serve, and then of end

	// mu is held wherever a child is started, signalled or collected, so that
	// no signal ever goes to a process id that was given back.
	mu        sync.Mutex
	processes map[int]*supervised // children that were started, until collected
	journal   journal
	noted     int  // how many of noteAfter have passed
	removed   bool // the journal was, in the end: it must not come back
}

// save writes the journal; mu is held.
func (s *supervisor) save() error {
	if s.removed {
		return nil
	}
	return s.journal.write(s.stateDir)
}

// supervised is a child.
type supervised struct {
	telemetry.Identity
	name, exe string
	pipe      uint64        // inode of its log's
	logged    chan struct{} // its log is whole
	exited    chan struct{}
}

// serve does what it is told until in closes or says something else than a
// request.
func (s *supervisor) serve(in io.Reader) {
	requests := json.NewDecoder(in)
	for {
		var r request
		if requests.Decode(&r) != nil {
			return
		}
		switch r.Op {
		case opOpen:
			path, err := s.open(r.StateDir, r.Path)
			s.answer(r.ID, reply{Journal: path}, err)
		case opStart:
			id, err := s.start(r.Start)
			s.answer(r.ID, reply{Process: id}, err)
		case opSignal:
			s.answer(r.ID, reply{}, s.signal(r.PID, r.Signal))
		case opStop:
			go func() { s.answer(r.ID, reply{}, s.stop(r.PID, time.Duration(r.GraceMS)*time.Millisecond)) }()
		case opNetwork:
			addresses, err := s.network(r.Network)
			s.answer(r.ID, reply{Addresses: addresses}, err)
		case opUnnetwork:
			s.unnetwork(r.Network)
			s.answer(r.ID, reply{}, nil)
		default:
			s.answer(r.ID, reply{}, fmt.Errorf("unknown operation %q", r.Op))
		}
	}
}

func (s *supervisor) answer(id uint64, r reply, err error) {
	r.ID = id
	if err != nil {
		r.Error = err.Error()
	}
	s.replies.put(r)
}

// open begins the journal and returns its path. The directory need not exist
// yet: it is made by one who knows that it will be removed.
func (s *supervisor) open(stateDir, dir string) (string, error) {
	for _, p := range []string{stateDir, dir} {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p {
			return "", fmt.Errorf("%q is no clean absolute path", p)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stateDir = stateDir
	s.journal.Paths = []string{dir}
	return s.journal.path(stateDir), s.journal.write(stateDir)
}

// network makes the namespaces of a deployment and returns their addresses.
func (s *supervisor) network(r *networkRequest) (map[string]string, error) {
	if r == nil || s.networks[r.Name] != nil {
		return nil, errors.New("no network to make")
	}
	// The link is in the journal before it is made, like everything.
	note := func(link string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if slices.Contains(s.journal.Links, link) {
			return nil
		}
		s.journal.Links = append(s.journal.Links, link)
		return s.save()
	}
	n, addresses, err := makeNetwork(*r, s.journal.mark(), note)
	if err != nil {
		return nil, err
	}
	s.networks[r.Name] = n
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLinks()
	return addresses, nil
}

// unnetwork removes the namespaces of a deployment whose processes have
// ended.
func (s *supervisor) unnetwork(r *networkRequest) {
	if r == nil || s.networks[r.Name] == nil {
		return
	}
	s.networks[r.Name].close()
	delete(s.networks, r.Name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLinks()
}

// forgetLinks leaves the links in the journal that are; mu is held.
func (s *supervisor) forgetLinks() {
	s.journal.Links = nil
	for _, n := range s.networks {
		s.journal.Links = append(s.journal.Links, n.link)
	}
	_ = s.save() // see start
}

// within calls fork on the starter's thread, in a namespace of a network
// where one is named.
func (s *supervisor) within(r *startRequest, fork func() error) (func() error, error) {
	if r.Network == "" {
		return fork, nil
	}
	n := s.networks[r.Network]
	if n == nil {
		return nil, fmt.Errorf("there is no network %q", r.Network)
	}
	ns, ok := n.namespaces[r.Namespace]
	if !ok {
		return nil, fmt.Errorf("there is no namespace %q", r.Namespace)
	}
	return func() error {
		home, err := netns.GetFromPath("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer home.Close()
		if err := netns.Set(ns); err != nil {
			return err
		}
		err = fork()
		if back := netns.Set(home); back != nil {
			// What this thread starts from now on would be in the wrong network.
			s.starter.Close()
			return errors.Join(err, back)
		}
		return err
	}, nil
}

// start forks from the starter's thread. The child is killed by the kernel
// when that thread, and so the supervisor, dies; its own process group keeps
// its descendants together.
func (s *supervisor) start(r *startRequest) (telemetry.Identity, error) {
	if r == nil || r.Path == "" {
		return telemetry.Identity{}, errors.New("no program to start")
	}
	logRead, logWrite, err := os.Pipe()
	if err != nil {
		return telemetry.Identity{}, err
	}
	defer logWrite.Close()
	// Programs expect writing to wait, which Go's pipes do not.
	err = unix.SetNonblock(int(logWrite.Fd()), false)
	var pipe unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(logWrite.Fd()), &pipe)
	}
	if err != nil {
		logRead.Close()
		return telemetry.Identity{}, err
	}
	p := &supervised{name: r.Name, exe: r.Path, pipe: pipe.Ino, logged: make(chan struct{}), exited: make(chan struct{})}

	s.mu.Lock()
	defer s.mu.Unlock()
	// A journal that cannot be written (a full disk) costs the second net, not
	// the first: the supervisor still ends everything.
	s.journal.Pipes = append(s.journal.Pipes, p.pipe)
	_ = s.save()
	attributes := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if r.Group != 0 {
		attributes.Credential = &syscall.Credential{Uid: uint32(os.Geteuid()), Gid: r.Group, NoSetGroups: true}
	}
	fork, err := s.within(r, func() error {
		pid, err := syscall.ForkExec(r.Path, append([]string{r.Path}, r.Args...), &syscall.ProcAttr{
			Dir:   r.Dir,
			Env:   append([]string{}, r.Env...),
			Files: []uintptr{s.null.Fd(), logWrite.Fd(), logWrite.Fd()},
			Sys:   attributes,
		})
		p.PID = pid
		return err
	})
	if err == nil {
		err = s.starter.Run(r.CPUs, fork)
	}
	if err != nil {
		logRead.Close()
		s.journal.Pipes = slices.DeleteFunc(s.journal.Pipes, func(n uint64) bool { return n == p.pipe })
		return telemetry.Identity{}, fmt.Errorf("%s: %w", r.Path, err)
	}
	// It cannot be collected while mu is held, so it has a start time.
	if stat, err := telemetry.ReadStat(p.PID); err == nil {
		p.Identity = stat.Identity
	}
	s.processes[p.PID] = p
	go func() {
		l := &cappedLog{path: r.Log, limit: logLimit}
		_, _ = io.Copy(l, logRead) // ends when the last descendant closes it
		l.Close()
		logRead.Close()
		close(p.logged)
		s.mu.Lock()
		defer s.mu.Unlock()
		// Nobody holds it any more, and its number may go to another.
		s.journal.Pipes = slices.DeleteFunc(s.journal.Pipes, func(n uint64) bool { return n == p.pipe })
	}()
	select {
	case s.started <- struct{}{}:
	default:
	}
	s.journal.Processes = append(s.journal.Processes, entry{Identity: p.Identity, Name: p.name, Exe: p.exe})
	s.noteLater()
	_ = s.save() // see above
	return p.Identity, nil
}

// reap collects children as they end, those that came to us as orphans
// included.
func (s *supervisor) reap() {
	for {
		// Waits without collecting: that happens under mu.
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.ECHILD {
			<-s.started
			continue
		}
		s.mu.Lock()
		for {
			var status unix.WaitStatus
			pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
			if err == unix.EINTR {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
			if p, ok := s.processes[pid]; ok {
				delete(s.processes, pid)
				s.journal.drop(func(e entry) bool { return e.Identity == p.Identity })
				go s.tellExit(p, status)
			}
		}
		s.mu.Unlock()
	}
}

func (s *supervisor) tellExit(p *supervised, status unix.WaitStatus) {
	close(p.exited)
	// The log first, so that whoever hears of the exit finds its last words. A
	// descendant that lives on may hold it open.
	select {
	case <-p.logged:
	case <-time.After(200 * time.Millisecond):
	}
	s.replies.put(reply{Process: p.Identity, Exit: describeExit(status)})
}

func describeExit(status unix.WaitStatus) string {
	switch {
	case status.Signaled() && status.CoreDump():
		return "signal: " + status.Signal().String() + " (core dumped)"
	case status.Signaled():
		return "signal: " + status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}

func (s *supervisor) signal(pid int, name string) error {
	sig, ok := map[string]unix.Signal{"kill": unix.SIGKILL, "stop": unix.SIGSTOP, "continue": unix.SIGCONT}[name]
	if !ok {
		return fmt.Errorf("unknown signal %q", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.processes[pid]
	if !ok {
		return fmt.Errorf("process %d has ended", pid)
	}
	for _, d := range s.family(p) {
		_ = process.Signal(d.Identity, sig) // it may have ended meanwhile
	}
	return unix.Kill(pid, sig)
}

// family returns the living descendants of a child: those below it, and those
// that lost their parent to us but are of its process group or hold its pipe.
func (s *supervisor) family(p *supervised) []telemetry.Stat {
	all, err := telemetry.Processes()
	if err != nil {
		return nil
	}
	var out []telemetry.Stat
	below := map[int]bool{p.PID: true}
	for _, d := range telemetry.Tree(all, p.PID) {
		below[d.PID] = true
		if !d.Dead() {
			out = append(out, d)
		}
	}
	for _, d := range telemetry.Tree(all, s.journal.Supervisor.PID) {
		if !below[d.PID] && !d.Dead() && (d.Group == p.PID || telemetry.HoldsPipe(d.PID, []uint64{p.pipe})) {
			out = append(out, d)
		}
	}
	return out
}

// stop ends a child by SIGTERM, by SIGKILL when the grace is over, and then
// what it has left behind. It returns when all are gone.
func (s *supervisor) stop(pid int, grace time.Duration) error {
	s.mu.Lock()
	p, ok := s.processes[pid]
	if !ok {
		s.mu.Unlock()
		return nil // what it left behind is ended with everything else
	}
	family := s.family(p)
	_ = unix.Kill(pid, unix.SIGTERM)
	s.proceed(p, family)
	s.mu.Unlock()

	select {
	case <-p.exited:
	case <-time.After(grace):
		s.mu.Lock()
		if s.processes[pid] == p {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		s.mu.Unlock()
	}
	deadline := time.Now().Add(killPatience)
	for {
		s.mu.Lock()
		left := s.family(p)
		for _, d := range family {
			if d.Alive() {
				left = append(left, d)
			}
		}
		_, lives := s.processes[pid]
		s.mu.Unlock()
		for _, d := range left {
			_ = process.Signal(d.Identity, unix.SIGKILL) // it may have ended meanwhile
		}
		if len(left) == 0 && !lives {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d (%s) and %d descendants do not end", pid, p.name, len(left))
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal.drop(func(e entry) bool { return !e.Alive() })
	_ = s.save() // see start
	return nil
}

// proceed lets stopped processes receive what they were sent.
func (s *supervisor) proceed(p *supervised, family []telemetry.Stat) {
	_ = unix.Kill(p.PID, unix.SIGCONT)
	for _, d := range family {
		_ = process.Signal(d.Identity, unix.SIGCONT)
	}
}

// noteLater arranges for descendants to be written into the journal; mu is
// held.
func (s *supervisor) noteLater() {
	s.noted = 0
	if s.notes == nil {
		s.notes = time.AfterFunc(noteAfter[0], s.note)
		return
	}
	s.notes.Reset(noteAfter[0])
}

func (s *supervisor) note() {
	all, err := telemetry.Processes()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.journal.add(telemetry.Tree(all, s.journal.Supervisor.PID)) {
		_ = s.save() // see start
	}
	if s.noted++; s.noted < len(noteAfter) {
		s.notes.Reset(noteAfter[s.noted] - noteAfter[s.noted-1])
	}
}

// end ends everything and removes what was made for it.
func (s *supervisor) end() error {
	s.mu.Lock()
	if s.notes != nil {
		s.notes.Stop()
	}
	var wait []*supervised
	for pid, p := range s.processes {
		wait = append(wait, p)
		_ = unix.Kill(pid, unix.SIGTERM)
		s.proceed(p, s.family(p))
	}
	s.mu.Unlock()
	grace := time.After(endGrace)
	for _, p := range wait {
		select {
		case <-p.exited:
			continue
		case <-grace:
		}
		break
	}
	// Orphans come to us and nowhere else, so when nothing is below us any
	// more, nothing is left.
	deadline := time.Now().Add(killPatience)
	for {
		all, err := telemetry.Processes()
		if err != nil {
			return fmt.Errorf("supervisor: %w", err)
		}
		left := telemetry.Tree(all, s.journal.Supervisor.PID)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			// The journal stays for the next start.
			return fmt.Errorf("supervisor: %d processes do not end", len(left))
		}
		for _, d := range left {
			_ = process.Signal(d.Identity, unix.SIGKILL)
		}
		time.Sleep(2 * time.Millisecond)
	}
	for name, n := range s.networks {
		n.close()
		delete(s.networks, name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.journal.Paths {
		if err := os.RemoveAll(p); err != nil {
			return fmt.Errorf("supervisor: %w", err)
		}
	}
	if s.stateDir == "" {
		return nil
	}
	// A note or the end of a stop may be waiting for mu.
	s.removed = true
	if err := os.Remove(s.journal.path(s.stateDir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("supervisor: %w", err)
	}
	return nil
}
