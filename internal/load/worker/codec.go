package worker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/load"
)

// LeaseTime is for how long a load goes on without a message from its driver;
// heartbeatTime is how often a driver sends one.
const (
	LeaseTime     = 3 * time.Second
	heartbeatTime = 500 * time.Millisecond
)

// reader reads the messages of one side.
type reader struct {
	lines *bufio.Scanner
	last  uint64
}

func newReader(r io.Reader) *reader {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 32<<10), load.MaxLine)
	return &reader{lines: lines}
}

// read returns the next message. io.EOF is the end of the stream between two
// messages; anything that is not the next message is an error of code invalid.
func (r *reader) read() (load.Message, error) {
	if !r.lines.Scan() {
		if err := r.lines.Err(); err != nil {
			return load.Message{}, meshbench.Errorf(meshbench.Invalid, "the stream of messages broke off: %w", err)
		}
		return load.Message{}, io.EOF
	}
	m, err := decode(r.lines.Bytes())
	if err != nil {
		return m, err
	}
	if m.Seq != r.last+1 {
		return m, meshbench.Errorf(meshbench.Invalid, "message %d follows message %d: some are missing", m.Seq, r.last)
	}
	r.last = m.Seq
	return m, nil
}

// decode reads one line. What a type needs is there afterwards.
func decode(line []byte) (load.Message, error) {
	var m load.Message
	if err := json.Unmarshal(line, &m); err != nil {
		if len(line) > 80 {
			line = append(bytes.Clone(line[:80]), "..."...)
		}
		return m, meshbench.Errorf(meshbench.Invalid, "%q is not a message: %w", line, err)
	}
	complete := true
	switch m.Type {
	case load.TypeHello:
		complete = m.Hello != nil
	case load.TypeJob:
		complete = m.Job != nil && m.Job.Rate > 0
	case load.TypeTick:
		complete = m.Tick != nil
	case load.TypeDone:
		complete = m.Done != nil
	case load.TypeError:
		complete = m.Error != nil
	case load.TypeReady, load.TypeStart, load.TypeHeartbeat, load.TypeStop:
	default:
		return m, meshbench.Errorf(meshbench.Invalid, "a message of the unknown type %q", m.Type).
			WithHint("worker and driver must be the same version of meshbench")
	}
	if !complete {
		return m, meshbench.Errorf(meshbench.Invalid, "a message of type %s without its content", m.Type)
	}
	return m, nil
}

// writer writes the messages of one side; it may be used concurrently.
type writer struct {
	mu   sync.Mutex
	w    io.Writer
	next uint64
}

func newWriter(w io.Writer) *writer { return &writer{w: w, next: 1} }

func (w *writer) write(m load.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	m.Seq = w.next
	line, err := json.Marshal(m)
	if err != nil {
		return meshbench.Errorf(meshbench.Internal, "encode a message: %w", err)
	}
	if _, err := w.w.Write(append(line, '\n')); err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "send a message: %w", err)
	}
	w.next++
	return nil
}
