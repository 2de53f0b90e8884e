package runtimes

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// maxOutput is how much of what a program prints is kept: the last part.
const maxOutput = 16 << 10

// patience bounds how long a program may take to print its version.
const patience = 30 * time.Second

// run runs a program to its end and returns the last part of what it wrote to
// its standard output and error. The program is killed when ctx ends, and on
// Linux when this program dies.
func run(ctx context.Context, environ []string, program string, args ...string) (string, error) {
	var out tail
	err := runTo(ctx, environ, &out, program, args...)
	return string(out.kept), err
}

// runTo is run with a writer for what the program prints.
func runTo(ctx context.Context, environ []string, out io.Writer, program string, args ...string) error {
	// The death signal is bound to the thread that starts the program, so the
	// thread must live as long as it does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for attempt := 1; ; attempt++ {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Args[0] = filepath.Base(program)
		cmd.Env = environ
		cmd.Stdout, cmd.Stderr = out, out
		cmd.WaitDelay = 5 * time.Second
		bindLife(cmd)
		err := cmd.Run()
		// A program that was just written cannot be started while some process
		// has it open for writing, and one that another thread is starting right
		// now has inherited that for a moment.
		if errors.Is(err, syscall.ETXTBSY) && attempt < 50 {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return err
	}
}

// askVersion runs a program to learn its version. What it printed is returned
// too. An exit code other than 0 is right only if it is status.
func askVersion(ctx context.Context, environ []string, program string, args []string, status int) (version, string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := run(ctx, environ, program, args...)
	var ended *exec.ExitError
	if status != 0 && errors.As(err, &ended) && ended.ExitCode() == status {
		err = nil
	}
	if err != nil {
		return version{}, out, err
	}
	v, ok := parseReport(out)
	if !ok {
		return version{}, out, errors.New("it printed no version")
	}
	return v, out, nil
}

// tail keeps the last part of what is written to it.
type tail struct{ kept []byte }

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - maxOutput; over > 0 {
		t.kept = slices.Delete(t.kept, 0, over)
	}
	return len(p), nil
}

// lastLines returns the last n lines that are not empty, as one line.
func lastLines(text string, n int) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

// lookPath returns the absolute paths of all programs of a name on the PATH of
// an environment, in its order, each once.
func lookPath(environ []string, name string) []string {
	var found []string
	for _, dir := range filepath.SplitList(variable(environ, "PATH")) {
		// A relative directory would make the answer depend on where one stands.
		if !filepath.IsAbs(dir) {
			continue
		}
		path := filepath.Join(dir, name)
		if runtime.GOOS == "windows" {
			path += ".exe"
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() ||
			runtime.GOOS != "windows" && info.Mode()&0o111 == 0 {
			continue
		}
		if !slices.Contains(found, path) {
			found = append(found, path)
		}
	}
	return found
}

// variable returns the last value of an environment variable, as exec does.
func variable(environ []string, name string) string {
	for _, entry := range slices.Backward(environ) {
		if k, v, _ := strings.Cut(entry, "="); k == name {
			return v
		}
	}
	return ""
}
