package worker

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/load"
)

func TestMessagesTravel(t *testing.T) {
	var b bytes.Buffer
	w := newWriter(&b)
	sent := []load.Message{
		{Type: load.TypeHello, Hello: &load.Hello{Protocol: 1, Engine: "epoll"}},
		{Type: load.TypeHeartbeat},
		{Type: load.TypeStart, StartAt: 7},
		{Type: load.TypeDone, Done: &load.Summary{CountedNanos: 3}},
		{Type: load.TypeError, Error: meshbench.Errorf(meshbench.Invalid, "no").WithHint("yes")},
	}
	for _, m := range sent {
		if err := w.write(m); err != nil {
			t.Fatal(err)
		}
	}
	r := newReader(&b)
	for i, want := range sent {
		got, err := r.read()
		if err != nil {
			t.Fatal(err)
		}
		if got.Type != want.Type || got.Seq != uint64(i+1) || got.StartAt != want.StartAt {
			t.Errorf("message %d: %+v", i, got)
		}
	}
	if _, err := r.read(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestWhatIsNoMessage(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":         "hello\n",
		"a gap":           `{"seq":1,"type":"ready"}` + "\n" + `{"seq":3,"type":"ready"}` + "\n",
		"out of order":    `{"seq":2,"type":"ready"}` + "\n",
		"unknown type":    `{"seq":1,"type":"dance"}` + "\n",
		"no content":      `{"seq":1,"type":"tick"}` + "\n",
		"no job":          `{"seq":1,"type":"job"}` + "\n",
		"no error":        `{"seq":1,"type":"error"}` + "\n",
		"too long a line": `{"seq":1,"type":"ready","x":"` + strings.Repeat("y", load.MaxLine) + `"}` + "\n",
	} {
		r := newReader(strings.NewReader(text))
		var err error
		for err == nil {
			_, err = r.read()
		}
		var e *meshbench.Error
		if !errors.As(err, &e) || e.Code != meshbench.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"seq":1,"type":"hello","hello":{"protocol":1,"build":"x","engine":"epoll","pid":7}}`,
		`{"seq":2,"type":"job","job":{"target":{"url":"http://h/"},"rate":"max","timeout":"1s"}}`,
		`{"seq":3,"type":"tick","tick":{"phase":"measure","counts":{"response":"AQE="}}}`,
		`{"seq":4,"type":"done","done":{"calibrations":[{"ns":1,"gaps_ns":[1]}]}}`,
		`{"seq":5,"type":"error","error":{"code":"invalid","message":"m"}}`,
		`{"seq":6,"type":"stop"}`, `{}`, `[]`, `nonsense`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := decode(line)
		if err != nil {
			var e *meshbench.Error
			if !errors.As(err, &e) || e.Code != meshbench.Invalid {
				t.Fatalf("%v", err)
			}
			return
		}
		if m.Type == load.TypeTick {
			_, _ = load.NewAggregate(load.Job{}).Add(*m.Tick)
		}
		// What was read can be written and read again.
		var b bytes.Buffer
		if err := newWriter(&b).write(m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if again, err := newReader(&b).read(); err != nil || again.Type != m.Type {
			t.Fatalf("%q: %v", line, err)
		}
	})
}
