package load

import (
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"time"

	"github.com/meshbench/meshbench"
)

// channel is one of the distributions that a loop records.
type channel int

const (
	chLateness channel = iota
	chWait
	chService
	chResponse
	chConnect
	chErrorResponse
	chCensored // the least that the response of a request can be whose end was not seen
	channelCount
)

var channelNames = [channelCount]string{
	"lateness", "connection_wait", "service", "response", "connect", "error_response", "censored",
}

// sparse counts values and remembers which counters it has touched, so that
// emptying it costs what was recorded and not what could be.
type sparse struct {
	n       int
	touched [counters]uint16
	counts  [counters]uint32
}

func (s *sparse) record(nanos int64) bool {
	if uint64(nanos) > maxNanos {
		return false
	}
	i := counterOf(nanos)
	c := s.counts[i]
	if c == 0 {
		s.touched[s.n] = uint16(i)
		s.n++
	}
	s.counts[i] = c + 1
	return true
}

// phase is what a moment of a job belongs to.
type phase uint8

const (
	phaseWarmup phase = iota
	phaseMeasure
	phaseDrain
)

var phaseNames = [...]Phase{Warmup, Measure, Drain}

// window is all that a loop counts in one tick. There are two: one is
// recorded into while the other leaves.
type window struct {
	channels [channelCount]sparse

	phase      phase
	slot       int64 // the first 100 ms, from 0 where counting begins; negative before
	slots      int64
	elapsed    int64 // nanoseconds from the loop's first moment to the window's end
	sent       uint64
	outOfRange uint64
	maxLate    int64
	backlog    int64 // waiting for a connection, at the end
	inFlight   int64
	last       int64 // when the last counted response was complete, after counting began

	// Of counted requests only:
	planned, completed, errored, timedOut, skipped, unfinished uint64
	bytesRead, bytesWritten                                    uint64

	classes    [2][classCount]uint32 // of requests, of idle connections
	classOrder [2][classCount]class
	classN     [2]int
}

func (w *window) record(c channel, nanos int64) {
	if !w.channels[c].record(nanos) {
		w.outOfRange++
	}
}

// The kinds of classes: what failed.
const (
	ofRequest = iota
	ofConnection
)

func (w *window) fail(kind int, c class) {
	if w.classes[kind][c] == 0 {
		w.classOrder[kind][w.classN[kind]] = c
		w.classN[kind]++
	}
	w.classes[kind][c]++
}

// clear empties all but the channels, which empty themselves as they leave.
func (w *window) clear() {
	for kind := range w.classes {
		for _, c := range w.classOrder[kind][:w.classN[kind]] {
			w.classes[kind][c] = 0
		}
		w.classN[kind] = 0
	}
	w.sent, w.outOfRange, w.maxLate = 0, 0, 0
	w.planned, w.completed, w.errored, w.timedOut, w.skipped, w.unfinished = 0, 0, 0, 0, 0, 0
	w.bytesRead, w.bytesWritten = 0, 0
}

// The sizes of the sender's steps: each takes a few microseconds, so that it
// fits between two arrivals.
const (
	stepEntries = 192
	stepBytes   = 4096 // PIPE_BUF: a pipe that is ready takes as many without blocking
	entryBytes  = binary.MaxVarintLen16 + binary.MaxVarintLen32
)

// sender turns a window into one line of the stream, piece by piece, on
// memory that it has from the start.
type sender struct {
	seq uint64  // of the next message
	w   *window // leaving; nil: none
	ch  channel // being encoded
	pos int     // in its list
	out []byte  // of the line, not written yet
	raw []byte  // encoded counts that do not fill 3 bytes yet
}

func newSender(seq uint64) *sender {
	return &sender{
		seq: seq,
		out: make([]byte, 0, 64<<10),
		raw: make([]byte, 0, 3+stepEntries*entryBytes),
	}
}

// begin starts sending w, which must not be recorded into until done.
func (s *sender) begin(w *window) {
	s.w, s.ch, s.pos = w, 0, 0
	b := s.out
	number := func(name string, v int64) {
		b = append(b, ',', '"')
		b = append(b, name...)
		b = append(b, '"', ':')
		b = strconv.AppendInt(b, v, 10)
	}
	b = append(b, `{"seq":`...)
	b = strconv.AppendUint(b, s.seq, 10)
	b = append(b, `,"type":"tick","tick":{"phase":"`...)
	b = append(b, phaseNames[w.phase]...)
	b = append(b, '"')
	number("slot", w.slot)
	number("slots", w.slots)
	number("elapsed_ns", w.elapsed)
	number("sent", int64(w.sent))
	number("planned", int64(w.planned))
	number("completed", int64(w.completed))
	number("errored", int64(w.errored))
	number("timed_out", int64(w.timedOut))
	number("skipped", int64(w.skipped))
	number("unfinished", int64(w.unfinished))
	number("bytes_read", int64(w.bytesRead))
	number("bytes_written", int64(w.bytesWritten))
	number("out_of_range", int64(w.outOfRange))
	number("max_lateness_ns", w.maxLate)
	number("backlog", w.backlog)
	number("in_flight", w.inFlight)
	number("last_ns", w.last)
	for kind, name := range [2]string{"errors", "connection_errors"} {
		b = append(b, ',', '"')
		b = append(b, name...)
		b = append(b, `":{`...)
		for i, c := range w.classOrder[kind][:w.classN[kind]] {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, '"')
			b = c.append(b)
			b = append(b, '"', ':')
			b = strconv.AppendUint(b, uint64(w.classes[kind][c]), 10)
		}
		b = append(b, '}')
	}
	b = append(b, `,"counts":{"`...)
	b = append(b, channelNames[0]...)
	b = append(b, '"', ':', '"')
	s.out = b
	s.seq++
}

// encode adds the next piece of the line; it reports false when the line is
// whole. The counts of a channel are pairs of varints: counter, count.
func (s *sender) encode() bool {
	if s.w == nil {
		return false
	}
	c := &s.w.channels[s.ch]
	end := min(s.pos+stepEntries, c.n)
	for _, i := range c.touched[s.pos:end] {
		s.raw = binary.AppendUvarint(s.raw, uint64(i))
		s.raw = binary.AppendUvarint(s.raw, uint64(c.counts[i]))
		c.counts[i] = 0
	}
	s.pos = end
	whole := len(s.raw)
	if s.pos < c.n {
		whole -= whole % 3
	}
	s.out = base64.StdEncoding.AppendEncode(s.out, s.raw[:whole])
	s.raw = s.raw[:copy(s.raw, s.raw[whole:])]
	if s.pos < c.n {
		return true
	}
	c.n, s.pos = 0, 0
	if s.ch++; s.ch < channelCount {
		s.out = append(s.out, '"', ',', '"')
		s.out = append(s.out, channelNames[s.ch]...)
		s.out = append(s.out, '"', ':', '"')
		return true
	}
	s.out = append(s.out, "\"}}}\n"...)
	s.w.clear()
	s.w = nil
	return false
}

// Phase is what a moment of a job belongs to: warmup, measure or drain.
type Phase string

// Report is one tick as it leaves the loop: what came to pass since the last
// one, requests counted where their intended start lies after the warm-up.
type Report struct {
	Phase            Phase             `json:"phase"`
	Slot             int64             `json:"slot"`  // the first 100 ms that it covers, from 0 where counting begins
	Slots            int64             `json:"slots"` // how many: more than one where the reader was slow
	ElapsedNanos     int64             `json:"elapsed_ns"`
	Sent             uint64            `json:"sent"` // warm-up included
	Planned          uint64            `json:"planned"`
	Completed        uint64            `json:"completed"`
	Errored          uint64            `json:"errored"`
	TimedOut         uint64            `json:"timed_out"`
	Skipped          uint64            `json:"skipped"`
	Unfinished       uint64            `json:"unfinished"`
	BytesRead        uint64            `json:"bytes_read"`
	BytesWritten     uint64            `json:"bytes_written"`
	OutOfRange       uint64            `json:"out_of_range"`
	MaxLatenessNanos int64             `json:"max_lateness_ns"`
	Backlog          int64             `json:"backlog"`
	InFlight         int64             `json:"in_flight"`
	LastNanos        int64             `json:"last_ns"`
	Errors           map[string]uint64 `json:"errors"`
	ConnectionErrors map[string]uint64 `json:"connection_errors"`
	Counts           map[string][]byte `json:"counts"` // channel -> pairs of varints: counter, count
}

// addCounts adds what a channel of a Report counted to h.
func addCounts(h *Histogram, pairs []byte) error {
	for len(pairs) > 0 {
		i, n := binary.Uvarint(pairs)
		if n <= 0 {
			return meshbench.Errorf(meshbench.Invalid, "a tick's counts end within a counter")
		}
		c, m := binary.Uvarint(pairs[n:])
		if m <= 0 || i >= counters || c == 0 || c > 1<<32-1 {
			return meshbench.Errorf(meshbench.Invalid, "a tick counts %d at counter %d, which cannot be", c, i)
		}
		h.add(int(i), c)
		pairs = pairs[n+m:]
	}
	return nil
}

// slotTime is the length of a tick and of a batch.
const slotTime = int64(100 * time.Millisecond)
