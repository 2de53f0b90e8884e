// Package statsd receives what programs count and tell in the StatsD protocol
// (lines of "name:value|type" in UDP datagrams,
// https://github.com/statsd/statsd/blob/master/docs/metric_types.md), where a
// program has no endpoint to ask. It keeps what is needed to say how often
// something began: of a gauge, beside its value, the sum of all its rises.
package statsd

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
)

// The paths of the admin port.
const (
	ReadyPath   = "/ready"   // 200 once datagrams are received
	MetricsPath = "/metrics" // Metrics as JSON
)

// Options are of a receiver.
type Options struct {
	Listen string // UDP address
	Admin  string // TCP address of the HTTP endpoint that tells what was received
}

// Metrics is what was received so far, by name.
type Metrics struct {
	Gauges   map[string]Gauge   `json:"gauges"`
	Counters map[string]float64 `json:"counters"` // sums, sampling made up for
	// Malformed counts lines that are no metric.
	Malformed uint64 `json:"malformed"`
}

// Gauge is a value that goes up and down.
type Gauge struct {
	Value float64 `json:"value"`
	Rises float64 `json:"rises"` // the sum of all increases since the first value, which counts as one from 0
}

// Serve receives until ctx ends, which is no error. An address that cannot be
// had is an error of code Unavailable.
func Serve(ctx context.Context, o Options) error {
	packets, err := net.ListenPacket("udp", o.Listen)
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the receiver of metrics cannot listen: %w", err).WithHint("choose another address")
	}
	defer packets.Close()
	listener, err := net.Listen("tcp", o.Admin)
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the receiver of metrics cannot be asked: %w", err).WithHint("choose another address")
	}
	defer listener.Close()
	r := newReceiver()
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+ReadyPath, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ready\n") })
	mux.HandleFunc("GET "+MetricsPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r.metrics())
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 2)
	go func() { ended <- server.Serve(listener) }()
	go func() { ended <- r.receive(packets) }()
	var failed error
	select {
	case <-ctx.Done():
	case err := <-ended:
		failed = meshbench.Errorf(meshbench.Internal, "the receiver of metrics ended: %w", err)
	}
	server.Close()
	return failed
}

// Read asks a receiver's admin port, at host:port, what it has received.
func Read(ctx context.Context, client *http.Client, address string) (Metrics, error) {
	var m Metrics
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+MetricsPath, nil)
	if err != nil {
		return m, err
	}
	response, err := client.Do(request)
	if err != nil {
		return m, meshbench.Errorf(meshbench.Unavailable, "the receiver of metrics does not answer: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return m, meshbench.Errorf(meshbench.Unavailable, "the receiver of metrics answers %s", response.Status)
	}
	return m, json.NewDecoder(io.LimitReader(response.Body, 8<<20)).Decode(&m)
}

type receiver struct {
	mu sync.Mutex
	m  Metrics
}

func newReceiver() *receiver {
	return &receiver{m: Metrics{Gauges: map[string]Gauge{}, Counters: map[string]float64{}}}
}

func (r *receiver) receive(packets net.PacketConn) error {
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := packets.ReadFrom(buffer)
		if err != nil {
			return err
		}
		r.take(string(buffer[:n]))
	}
}

// take reads the lines of a datagram.
func (r *receiver) take(datagram string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range strings.SplitSeq(datagram, "\n") {
		if line = strings.TrimSpace(line); line != "" && !r.m.take(line) {
			r.m.Malformed++
		}
	}
}

// take reads a line, and returns false where it is no metric. Types other
// than gauges and counters are received and not kept.
func (m *Metrics) take(line string) bool {
	name, rest, ok := strings.Cut(line, ":")
	if !ok || name == "" {
		return false
	}
	fields := strings.Split(rest, "|")
	if len(fields) < 2 {
		return false
	}
	value, err := strconv.ParseFloat(fields[0], 64)
	if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
		return false
	}
	switch fields[1] {
	case "g":
		g := m.Gauges[name]
		next := value
		if fields[0][0] == '+' || fields[0][0] == '-' {
			next += g.Value // a sign means: by so much
		}
		g.Rises += max(0, next-g.Value)
		g.Value = next
		m.Gauges[name] = g
	case "c":
		rate := 1.0
		for _, f := range fields[2:] {
			if text, sampled := strings.CutPrefix(f, "@"); sampled {
				if rate, err = strconv.ParseFloat(text, 64); err != nil || rate <= 0 || rate > 1 {
					return false
				}
			}
		}
		m.Counters[name] += value / rate
	case "ms", "h", "s":
	default:
		return false
	}
	return true
}

func (r *receiver) metrics() Metrics {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Metrics{Gauges: maps.Clone(r.m.Gauges), Counters: maps.Clone(r.m.Counters), Malformed: r.m.Malformed}
}
