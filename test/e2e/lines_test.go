package e2e

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// lines collects what a process says, and lets a test wait for a word in it.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func newLines() *lines { return &lines{} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits until the process has said what.
func (l *lines) await(t *testing.T, what string) {
	t.Helper()
	for range 600 {
		if strings.Contains(l.String(), what) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%q was not said; said was:\n%s", what, l)
}
