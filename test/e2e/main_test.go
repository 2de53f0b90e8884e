// Package e2e drives the built program as its users do: real processes, real
// Envoys, real requests, all on loopback.
package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// program is the built binary.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "meshbench-test-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "meshbench")
	build := exec.Command("go", "build", "-o", program, "../../cmd/meshbench")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building meshbench: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// result is what a command left.
type result struct {
	code           int
	stdout, stderr string
}

// command prepares a command with a data directory of its own; runtimes are
// cached for all.
func command(t *testing.T, data string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+data)
	return cmd
}

func run(t *testing.T, data string, args ...string) result {
	t.Helper()
	return finish(t, command(t, data, args...))
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), said.String()}
}

// document decodes the one JSON document on standard output.
func (r result) document(t *testing.T) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.stdout))
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		t.Fatalf("standard output is no JSON: %v\n%s\nstandard error: %s", err, r.stdout, r.stderr)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("more than one document on standard output: %s", r.stdout)
	}
	return doc
}

// at walks a document: keys and indices separated by dots.
func at(t *testing.T, doc any, path string) any {
	t.Helper()
	for _, word := range strings.Split(path, ".") {
		switch v := doc.(type) {
		case map[string]any:
			next, ok := v[word]
			if !ok {
				t.Fatalf("%s: no key %q", path, word)
			}
			doc = next
		case []any:
			i, err := strconv.Atoi(word)
			if err != nil || i >= len(v) {
				t.Fatalf("%s: no element %q of %d", path, word, len(v))
			}
			doc = v[i]
		default:
			t.Fatalf("%s: %q of %T", path, word, doc)
		}
	}
	return doc
}

// quick are flags for a run that is short, not precise.
func quick(more ...string) []string {
	return append([]string{"run", "-o", "json", "--sittings", "1", "--trial", "600ms", "--warmup", "200ms", "--rate", "200", "--force"}, more...)
}

// processes lists the living processes that were started from the built
// program or name the data directory: what must not outlive a run.
func processes(t *testing.T, data string) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range dirs {
		text, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err != nil || len(text) == 0 {
			continue // it has ended, or is waited for
		}
		line := strings.ReplaceAll(string(text), "\x00", " ")
		env, _ := os.ReadFile(filepath.Join(d, "environ"))
		if strings.Contains(line, data) || strings.HasPrefix(line, program+" ") && strings.Contains(string(env), data) {
			out = append(out, filepath.Base(d)+" "+line)
		}
	}
	return out
}

// nothingLives waits until no process of a data directory does.
func nothingLives(t *testing.T, data string) {
	t.Helper()
	var left []string
	for range 300 {
		if left = processes(t, data); len(left) == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("still alive:\n%s", strings.Join(left, "\n"))
}

// start begins a command and returns its standard error as it comes.
type started struct {
	cmd  *exec.Cmd
	out  *bytes.Buffer
	said *lines
}

func start(t *testing.T, cmd *exec.Cmd) *started {
	t.Helper()
	s := &started{cmd: cmd, out: &bytes.Buffer{}, said: newLines()}
	cmd.Stdout, cmd.Stderr = s.out, s.said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return s
}

func (s *started) wait(t *testing.T) result {
	t.Helper()
	err := s.cmd.Wait()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return result{s.cmd.ProcessState.ExitCode(), s.out.String(), s.said.String()}
}

func (s *started) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// server is an HTTP server on loopback that ends with the test.
func server(t *testing.T, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return "http://" + l.Addr().String() + "/"
}
