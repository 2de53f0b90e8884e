//go:build linux

package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/infra/infratest"
	"github.com/meshbench/meshbench/internal/infra/process"
	"github.com/meshbench/meshbench/internal/workload"
)

// options are of an infrastructure in directories of the test.
func options(t *testing.T) Options {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Executable: exe, Dir: t.TempDir(), StateDir: t.TempDir(), Runtime: shells}
}

func open(t *testing.T, o Options) (context.Context, *Infrastructure) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	i, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return ctx, i
}

// await waits until something holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func TestConformance(t *testing.T) {
	infratest.Run(t, infratest.Subject{
		New: func(t *testing.T) infra.Infrastructure {
			i, err := New(context.Background(), options(t))
			if err != nil {
				t.Fatal(err)
			}
			return i
		},
		Name:    "none/rate=200",
		Path:    meshbench.PathLoopback,
		Deploys: true,
	})
}

// A process gets what the Spec says and nothing else: no variable of ours, no
// open file, its own directory, its files, its CPUs.
func TestProcessGetsWhatTheSpecSays(t *testing.T) {
	t.Setenv("MESHBENCH_CANARY", "secret")
	leak, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	// As if a shell had left a file open for us.
	if _, err := unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	ctx, i := open(t, options(t))
	p := shell("probe", `cat /proc/self/environ | tr '\0' '\n' > environ; ls /proc/self/fd > fds; pwd > pwd; grep Cpus_allowed_list /proc/self/status > cpus; exec sleep 1000`)
	p.Env = []string{"A=1", `PORT={{port "probe" "web"}}`, "PATH=/usr/bin:/bin"}
	p.Ports = []string{"web"}
	p.Files = []meshbench.File{
		{Name: "sub/open.txt", Text: `{{address "probe" "web"}} {{dir}}`},
		{Name: "key.pem", Text: "k{{/* no template left */}}ey", Secret: true},
	}
	d, err := i.Deploy(ctx, "exact", meshbench.Spec{Processes: []meshbench.Process{p}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := d.Dir("probe")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		text, _ := os.ReadFile(filepath.Join(dir, name))
		return strings.TrimSpace(string(text))
	}
	await(t, "the process writes what it got", func() bool { return read("cpus") != "" })
	address, err := d.Address("probe", "web")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address)
	environment := strings.Split(read("environ"), "\n")
	slices.Sort(environment)
	// The shell adds PWD for its children.
	environment = slices.DeleteFunc(environment, func(s string) bool { return strings.HasPrefix(s, "PWD=") })
	if want := []string{"A=1", "PATH=/usr/bin:/bin", "PORT=" + port}; !slices.Equal(environment, want) {
		t.Errorf("environment %q, want %q", environment, want)
	}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", i.supervisor.cmd.Process.Pid)); err != nil || len(text) > 0 {
		t.Errorf("the supervisor's environment is %q, error %v; want none", text, err)
	}
	// ls itself has one more, for the directory.
	if fds := strings.Fields(read("fds")); len(fds) > 4 {
		t.Errorf("open files %q, want standard input, output and error alone", fds)
	}
	if got := read("pwd"); got != dir {
		t.Errorf("directory %q, want %q", got, dir)
	}
	if cpus := i.Placement().SystemCPUs; len(cpus) == 1 && !strings.HasSuffix(read("cpus"), "\t"+strconv.Itoa(cpus[0])) {
		t.Errorf("CPUs %q, want %v", read("cpus"), cpus)
	}
	if got, want := read("sub/open.txt"), address+" "+dir; got != want {
		t.Errorf("file %q, want %q", got, want)
	}
	info, err := os.Stat(filepath.Join(dir, "key.pem"))
	if err != nil || info.Mode().Perm() != 0o600 || read("key.pem") != "key" {
		t.Errorf("secret: mode %v, text %q, error %v", info.Mode(), read("key.pem"), err)
	}
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("after Close the directory with the key is still there: %v", err)
	}
}

// Somebody takes a port between its choice and its use.
func TestPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	// Whoever has it answers as if it were ready: that must not be believed.
	go func() {
		_ = http.Serve(taken, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "me") }))
	}()
	bad := taken.Addr().(*net.TCPAddr).Port
	o := options(t)
	times := 0
	picker := newPortPicker()
	o.pickPort = func() (int, error) {
		// The first deployment's second port, then the second's first.
		if times++; times == 2 || times == 3 {
			return bad, nil
		}
		return picker.pick()
	}
	ctx, i := open(t, o)
	d, err := i.Deploy(ctx, "retry", infratest.Spec(), nil)
	if err != nil {
		t.Fatalf("Deploy with a port taken: %v", err)
	}
	if times != 6 {
		t.Errorf("%d ports were chosen, want 6: two deployments given up", times)
	}
	if _, err := d.Seen(ctx, workload.Service); err != nil {
		t.Errorf("Seen: %v", err)
	}

	// Taken again and again it is an error that says so.
	o = options(t)
	o.pickPort = func() (int, error) { return bad, nil }
	ctx, i = open(t, o)
	_, err = i.Deploy(ctx, "taken", infratest.Spec(), nil)
	if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Unavailable || !errors.Is(err, errPortTaken) ||
		!strings.Contains(e.Message, "address already in use") && !strings.Contains(e.Message, "taken by another process") {
		t.Errorf("error %+v", e)
	}
}

// A process that lives but whose port another has.
func TestForeignListener(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	o := options(t)
	o.pickPort = func() (int, error) { return taken.Addr().(*net.TCPAddr).Port, nil }
	ctx, i := open(t, o)
	p := shell("idle", "exec sleep 1000")
	p.Ports = []string{"web"}
	p.ReadyURL = `tcp://{{address "idle" "web"}}`
	_, err = i.Deploy(ctx, "foreign", meshbench.Spec{Processes: []meshbench.Process{p}}, nil)
	if e := meshbench.AsError(err); e == nil || !strings.Contains(e.Message, "taken by another process") {
		t.Errorf("error %v", err)
	}
}

func TestDeployErrors(t *testing.T) {
	o := options(t)
	o.ReadyTimeout = 300 * time.Millisecond
	ctx, i := open(t, o)
	process := func(change func(*meshbench.Process)) meshbench.Process {
		p := shell("p", "echo last words; sleep 1000")
		p.Ports = []string{"web"}
		change(&p)
		return p
	}
	for _, c := range []struct {
		name string
		p    meshbench.Process
		code meshbench.Code
		want []string
	}{
		{"not ready", process(func(p *meshbench.Process) { p.ReadyURL = `http://{{address "p" "web"}}/` }),
			meshbench.Unavailable, []string{`"p"`, "not ready within", "connection refused", "last words"}},
		{"ends", process(func(p *meshbench.Process) {
			p.Args[1] = "echo last words; exit 3"
			p.ReadyURL = `tcp://{{address "p" "web"}}`
		}), meshbench.Unavailable, []string{`"p"`, "exit status 3", "last words"}},
		{"crashes", process(func(p *meshbench.Process) {
			p.Args[1] = "kill -SEGV $$"
			p.ReadyURL = `tcp://{{address "p" "web"}}`
		}), meshbench.Unavailable, []string{"segmentation fault"}},
		{"unknown runtime", process(func(p *meshbench.Process) { p.Runtime = "envoy@9" }), meshbench.NotFound, []string{"envoy@9"}},
		{"no such program", process(func(p *meshbench.Process) { p.Runtime = meshbench.Self; p.Args = nil }), meshbench.Unavailable, nil},
		{"template", process(func(p *meshbench.Process) { p.Args[1] = `{{port "p" "nope"}}` }), meshbench.Internal, []string{`"p"`, "nope"}},
		{"syntax", process(func(p *meshbench.Process) { p.Env = []string{"A={{"} }), meshbench.Internal, []string{`"p"`, "env"}},
		{"scheme", process(func(p *meshbench.Process) { p.ReadyURL = "ftp://x" }), meshbench.Invalid, []string{"ftp://x"}},
		{"file outside", process(func(p *meshbench.Process) { p.Files = []meshbench.File{{Name: "../x"}} }), meshbench.Internal, []string{"../x"}},
		{"name", process(func(p *meshbench.Process) { p.Name = "../x" }), meshbench.Internal, []string{"../x"}},
		{"port twice", process(func(p *meshbench.Process) { p.Ports = []string{"a", "a"} }), meshbench.Internal, []string{"twice"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "no such program" {
				saved := i.o.Executable
				i.o.Executable = filepath.Join(t.TempDir(), "gone")
				defer func() { i.o.Executable = saved }()
				c.want = []string{"gone", "no such file"}
			}
			d, err := i.Deploy(ctx, c.name, meshbench.Spec{Processes: []meshbench.Process{c.p}}, nil)
			if err == nil {
				d.Close(ctx)
				t.Fatal("it is deployed")
			}
			e := meshbench.AsError(err)
			if e.Code != c.code {
				t.Errorf("code %s, want %s", e.Code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(e.Message, w) {
					t.Errorf("%q is not in the message: %s", w, e.Message)
				}
			}
			left, err := os.ReadDir(i.root())
			if err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, error %v", left, err)
			}
		})
	}
	// Two processes with one name, and an entry that is none.
	p := process(func(*meshbench.Process) {})
	for _, spec := range []meshbench.Spec{
		{}, {Processes: []meshbench.Process{p, p}},
		{Processes: []meshbench.Process{p}, Entry: meshbench.PortRef{Process: "p", Port: "other"}},
	} {
		if _, err := i.Deploy(ctx, "bad", spec, nil); meshbench.AsError(err) == nil || meshbench.AsError(err).Code != meshbench.Internal {
			t.Errorf("error %v", err)
		}
	}
}

// Descendants count, are parked, and end with their process.
func TestDescendants(t *testing.T) {
	ctx, i := open(t, options(t))
	p := shell("busy", `sh -c 'while :; do :; done' & echo $! > child; wait`)
	p.MayPark = true
	d, err := i.Deploy(ctx, "busy", meshbench.Spec{Processes: []meshbench.Process{p}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	used := func() uint64 {
		u, err := d.Usage(ctx)
		if err != nil || len(u) != 1 || !u[0].Alive {
			t.Fatalf("usage %+v, error %v", u, err)
		}
		return u[0].UserNanos + u[0].SystemNanos
	}
	await(t, "the child's work is seen", func() bool { return used() > 200e6 })
	if err := d.Park(ctx); err != nil {
		t.Fatal(err)
	}
	// The signal takes effect within a tick.
	before := used()
	await(t, "the child stands still", func() bool {
		last := before
		before = used()
		return before == last
	})
	time.Sleep(50 * time.Millisecond)
	if after := used(); after != before {
		t.Errorf("parked, it used %d ns", after-before)
	}
	if err := d.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, "the child goes on", func() bool { return used() > before+50e6 })
	dir, _ := d.Dir("busy")
	text, err := os.ReadFile(filepath.Join(dir, "child"))
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(child, 0); err != unix.ESRCH {
		t.Errorf("after Close the child is there: %v", err)
	}
}

// What left its parent, its group and its session ends with its deployment,
// and what ignores SIGTERM, too.
func TestCloseEndsFamilies(t *testing.T) {
	ctx, i := open(t, options(t))
	mark := fmt.Sprintf("8%d.%d", os.Getpid(), time.Now().UnixNano()%1e9)
	d, err := i.Deploy(ctx, "families", families(mark), nil)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "all live", func() bool { return len(napping(t, mark)) >= 14 })
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if left := napping(t, mark); len(left) > 0 {
		t.Errorf("still alive: %v", left)
	}
}

// What a terminal or a service manager sends to all reaches neither the
// supervisor nor, through it, what is deployed.
func TestSupervisorIgnoresSignals(t *testing.T) {
	ctx, i := open(t, options(t))
	d, err := i.Deploy(ctx, "one", infratest.Spec(), nil)
	if err != nil {
		t.Fatal(err)
	}
	pid := i.supervisor.cmd.Process.Pid
	if session, err := unix.Getsid(pid); err != nil || session != pid {
		t.Errorf("the supervisor's session is %d, error %v; want its own", session, err)
	}
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE} {
		if err := unix.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(ctx); err != nil { // answered after the signals
		t.Errorf("Close: %v", err)
	}
	d, err = i.Deploy(ctx, "two", infratest.Spec(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if i.supervisor.cmd.Process.Pid != pid || d.Check() != nil {
		t.Errorf("the supervisor was %d and is %d; Check: %v", pid, i.supervisor.cmd.Process.Pid, d.Check())
	}
	// Nor do they stay ignored in what it starts.
	all, err := d.Usage(ctx)
	if err != nil || len(all) != 1 || !all[0].Alive {
		t.Errorf("usage %+v, error %v", all, err)
	}
	r := d.(*deployment).running[0]
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.id.PID))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nSigIgn:\t")
	word, _, _ := strings.Cut(rest, "\n")
	ignored, err := strconv.ParseUint(word, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE} {
		if ignored>>(sig-1)&1 != 0 {
			t.Errorf("what is started ignores %s", sig)
		}
	}
}

// A supervisor is killed: the deployment says so, and the next one works.
func TestAfterTheSupervisor(t *testing.T) {
	ctx, i := open(t, options(t))
	d, err := i.Deploy(ctx, "one", infratest.Spec(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.supervisor.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, "the death is noticed", func() bool { return d.Check() != nil })
	if err := d.Check(); !strings.Contains(err.Error(), "supervisor") {
		t.Errorf("Check: %v", err)
	}
	if err := d.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
	d, err = i.Deploy(ctx, "two", infratest.Spec(), nil)
	if err != nil {
		t.Fatalf("the next deployment: %v", err)
	}
	if err := d.Check(); err != nil {
		t.Errorf("Check: %v", err)
	}
}

func TestLogIsCapped(t *testing.T) {
	ctx, i := open(t, options(t))
	p := shell("chatty", `i=0; while [ $i -lt 60000 ]; do echo "line $i is one of a great many lines of this log"; i=$((i+1)); done; echo "the end" >&2; exec sleep 1000`)
	d, err := i.Deploy(ctx, "chatty", meshbench.Spec{Processes: []meshbench.Process{p}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the last line is kept", func() bool { return d.Log("chatty", 1) == "the end" })
	if got, want := d.Log("chatty", 2), "line 59999 is one of a great many lines of this log\nthe end"; got != want {
		t.Errorf("the last two lines are %q, want %q", got, want)
	}
	var size int64
	files, err := filepath.Glob(filepath.Join(i.logs(), "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size == 0 || size > 2*logLimit {
		t.Errorf("the log takes %d bytes, want at most %d", size, 2*logLimit)
	}
}

func TestWorkerIsPlaced(t *testing.T) {
	ctx, i := open(t, options(t))
	w, err := i.Worker(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(w.(*process.Worker).PID(), &allowed); err != nil {
		t.Fatal(err)
	}
	for _, c := range i.Placement().GeneratorCPUs {
		if !allowed.IsSet(c) || allowed.Count() != 1 {
			t.Errorf("it may run on %d CPUs, want CPU %d alone", allowed.Count(), c)
		}
	}
}

// A worker that dies tells why, and gets nothing of our environment.
func TestWorkerDies(t *testing.T) {
	o := options(t)
	script := filepath.Join(t.TempDir(), "meshbench")
	text := "#!/bin/sh\ncase $1 in worker) echo MESH=$MESHBENCH_CANARY; echo out of luck >&2; exit 7;; *) exec " + o.Executable + " \"$@\";; esac\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MESHBENCH_CANARY", "secret")
	o.Executable = script
	ctx, i := open(t, o)
	w, err := i.Worker(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	buf := make([]byte, 100)
	for err == nil {
		var n int
		n, err = w.Read(buf)
		got = append(got, buf[:n]...)
	}
	if e := meshbench.AsError(err); e.Code != meshbench.Unavailable || !strings.Contains(e.Message, "exit status 7") || !strings.Contains(e.Message, "out of luck") {
		t.Errorf("error %v", err)
	}
	if string(got) != "MESH=\n" {
		t.Errorf("it wrote %q", got)
	}
}

func BenchmarkUsage(b *testing.B) {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	i, err := New(ctx, Options{Executable: exe, Dir: b.TempDir(), StateDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer i.Close()
	d, err := i.Deploy(ctx, "usage", infratest.Spec(), nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := d.Usage(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
