package load

import (
	"bufio"
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lines sends windows through a real pipe and returns the messages.
func lines(t *testing.T, fill func(i int, w *window) bool) []Message {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		defer w.Close()
		s := newSender(5)
		win := new(window)
		for i := 0; fill(i, win); i++ {
			s.begin(win)
			for s.busy() {
				if _, errno := s.step(int(w.Fd())); errno != 0 {
					return
				}
			}
		}
	}()
	var out []Message
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, MaxLine)
	for scan.Scan() {
		var m Message
		if err := json.Unmarshal(scan.Bytes(), &m); err != nil {
			t.Fatalf("%v in %.200q", err, scan.Text())
		}
		out = append(out, m)
	}
	return out
}

func TestWindowsArriveAsTheyLeave(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	want := [3][channelCount]*Histogram{}
	got := lines(t, func(i int, w *window) bool {
		if i == len(want) {
			return false
		}
		w.phase, w.slot, w.slots, w.elapsed = phaseMeasure, int64(i)-1, 1, 77
		w.sent, w.planned, w.completed, w.errored = 1, 2, 3, 4
		w.timedOut, w.skipped, w.unfinished = 5, 6, 7
		w.bytesRead, w.bytesWritten, w.maxLate, w.backlog, w.inFlight, w.last = 8, 9, 10, 11, 12, 13
		w.fail(ofRequest, classReset)
		w.fail(ofRequest, classStatus+503)
		w.fail(ofRequest, classReset)
		w.fail(ofConnection, classExtra)
		w.record(chWait, maxNanos+1)
		for c := range want[i] {
			want[i][c] = NewHistogram()
			if c == 3 && i == 1 {
				continue // empty
			}
			for _, v := range someNanos(r, r.IntN(3000)) {
				w.record(channel(c), v)
				want[i][c].Record(v)
			}
		}
		return true
	})
	if len(got) != len(want) {
		t.Fatalf("%d messages of %d", len(got), len(want))
	}
	for i, m := range got {
		if m.Seq != uint64(5+i) || m.Type != TypeTick || m.Tick == nil {
			t.Fatalf("message %d: %d %s", i, m.Seq, m.Type)
		}
		for c, name := range channelNames {
			h := NewHistogram()
			if err := addCounts(h, m.Tick.Counts[name]); err != nil {
				t.Fatal(err)
			}
			a, _ := h.Encode()
			if b, _ := want[i][c].Encode(); !bytes.Equal(a, b) || h.Count() != want[i][c].Count() {
				t.Errorf("window %d: %s has changed on its way", i, name)
			}
		}
		m.Tick.Counts = nil
		if d := cmp.Diff(&Report{
			Phase: Measure, Slot: int64(i) - 1, Slots: 1, ElapsedNanos: 77, Sent: 1, Planned: 2, Completed: 3, Errored: 4,
			TimedOut: 5, Skipped: 6, Unfinished: 7, BytesRead: 8, BytesWritten: 9, OutOfRange: 1,
			MaxLatenessNanos: 10, Backlog: 11, InFlight: 12, LastNanos: 13,
			Errors:           map[string]uint64{"connection_reset": 2, "status_503": 1},
			ConnectionErrors: map[string]uint64{"extra_data": 1},
		}, m.Tick); d != "" {
			t.Error(d)
		}
	}
}

// The longest possible line: every counter of every channel.
func TestTheLongestLineFits(t *testing.T) {
	got := lines(t, func(i int, w *window) bool {
		for c := range w.channels {
			for k := range counters {
				w.record(channel(c), min(lowestOf(k), maxNanos))
				w.channels[c].counts[counterOf(min(lowestOf(k), maxNanos))] = 1<<32 - 1
			}
		}
		return i == 0
	})
	if len(got) != 1 {
		t.Fatalf("%d lines", len(got))
	}
}

// Encoding and sending allocate nothing: they happen between two requests.
func TestSendingAllocatesNothing(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	s, w := newSender(1), new(window)
	if n := testing.AllocsPerRun(20, func() {
		for i := range 5000 {
			w.record(channel(i%int(channelCount)), int64(i)*1000)
			w.fail(ofRequest, classStatus+class(i%500))
		}
		s.begin(w)
		for s.busy() {
			s.step(fd)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzAddCounts(f *testing.F) {
	f.Add([]byte{1, 1, 200, 1, 7})
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, pairs []byte) {
		a := NewAggregate(goodJob())
		_, err := a.Add(Report{Phase: Measure, Completed: 1, Counts: map[string][]byte{"response": pairs}})
		if err != nil {
			return
		}
		var sum uint64
		for _, n := range a.channels[chResponse].counts {
			sum += n
		}
		if sum != a.channels[chResponse].Count() {
			t.Errorf("%d counted, %d in all", sum, a.channels[chResponse].Count())
		}
		if a.scratch.Count() != 0 || a.scratch.Max() != 0 {
			t.Error("the scratch histogram was not emptied")
		}
	})
}
