package workload

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshbench/meshbench"
)

// Node is what an instance of a service does before it answers.
type Node struct {
	Latency  *meshbench.ServiceTime   `json:"latency,omitempty"`
	Errors   *meshbench.ServiceErrors `json:"errors,omitempty"`
	Calls    []Call                   `json:"calls,omitempty"` // in this order
	Parallel bool                     `json:"parallel,omitempty"`
}

// Call is a service that each request is passed on to.
type Call struct {
	To        string   `json:"to"`
	Addresses []string `json:"addresses"`      // host:port, taken in turn
	Host      string   `json:"host,omitempty"` // Host header; empty: the address
}

// service is the handler of the workload's port. Its usual path is short on
// purpose: its cost is in every latency that is measured.
type service struct {
	name     string
	instance int

	body   []byte
	length []string // the header's value, made once
	kind   []string

	requests atomic.Uint64
	meter    meter
	peer     atomic.Pointer[string] // the last X-Forwarded-Client-Cert

	node    Node
	busy    bool // the node does something: its time, errors or calls
	callers []*caller
	chance  *chance
	alarms  alarms

	failing failures
	mu      sync.Mutex
	last    []meshbench.Reflection // the newest last
}

// keptReflections is how many the control port tells of.
const keptReflections = 64

func newService(o Options) (*service, error) {
	if o.BodyBytes < 0 {
		return nil, meshbench.Errorf(meshbench.Invalid, "a body of %d bytes cannot be sent", o.BodyBytes)
	}
	if o.Service == "" {
		o.Service = meshbench.EchoService
	}
	s := &service{
		name: o.Service, instance: o.Instance,
		body:   filler(o.BodyBytes),
		length: []string{strconv.Itoa(o.BodyBytes)},
		kind:   []string{"application/octet-stream"},
		node:   o.Node,
		chance: newChance(o.Service, o.Instance),
		meter:  meter{base: time.Now()},
	}
	for _, c := range o.Node.Calls {
		caller, err := newCaller(c)
		if err != nil {
			return nil, err
		}
		s.callers = append(s.callers, caller)
	}
	s.busy = o.Node.Latency != nil || o.Node.Errors != nil || len(s.callers) > 0
	return s, nil
}

func (s *service) close() {
	for _, c := range s.callers {
		c.close()
	}
	s.alarms.close()
}

// filler makes a body: the letters of the alphabet, again and again.
func filler(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return b
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Counted before it is answered: once the client has the answer, it counts.
	number := s.requests.Add(1)
	special := isSpecial(r)
	if !special && !s.busy && number%timedOneIn != 0 {
		s.meter.inFlight.Add(1)
		if s.usual(w, r) == 0 {
			s.meter.codes[0].Add(1)
		}
		s.meter.inFlight.Add(-1)
		return
	}
	status, begin := 0, s.meter.begin()
	defer func() { s.meter.end(begin, status) }()
	if special {
		status = s.obey(w, r, number)
	} else {
		status = s.usual(w, r)
	}
}

// isSpecial tells whether a request asks for something. What is on the wire
// was looked at when it came; only where that is not known, or looks as if,
// are the headers gone through.
func isSpecial(r *http.Request) bool {
	if strings.Contains(r.URL.RawQuery, queryPrefix) {
		return true
	}
	if c, ok := r.Context().Value(wireKey{}).(*wire); ok && c.usual() {
		return false
	}
	for name := range r.Header {
		if name == "Upgrade" || strings.HasPrefix(name, headerPrefix) {
			return true
		}
	}
	return false
}

// usual answers a request that asks for nothing and returns the status; 0:
// the client was gone.
func (s *service) usual(w http.ResponseWriter, r *http.Request) int {
	s.remember(peerOf(r))
	if r.ContentLength != 0 {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return 0 // the client is gone
		}
	}
	if s.busy {
		if failed := s.work(r, nil, nil); failed != nil {
			return failed.write(w)
		}
	}
	h := w.Header()
	h["Content-Length"] = s.length
	h["Content-Type"] = s.kind
	if r.Method != http.MethodHead {
		_, _ = w.Write(s.body) // an error means that the client is gone
	}
	return http.StatusOK
}

// peerOf returns who the proxy says has sent a request; empty: it does not.
func peerOf(r *http.Request) string {
	if values := r.Header[peerHeader]; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// remember keeps the name that came with the last request; empty: none did.
func (s *service) remember(peer string) {
	last := s.peer.Load()
	switch {
	case peer == "" && last != nil:
		s.peer.Store(nil)
	case peer != "" && (last == nil || *last != peer):
		s.peer.Store(&peer)
	}
}

// failure is an answer that says what went wrong.
type failure struct {
	status int
	text   string
}

func (f *failure) write(w http.ResponseWriter) int {
	h := w.Header()
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	h["Content-Length"] = []string{strconv.Itoa(len(f.text) + 1)}
	w.WriteHeader(f.status)
	_, _ = io.WriteString(w, f.text+"\n")
	return f.status
}

// work does what the node does for a request: it takes its time, fails by
// chance, and calls the others. pass are headers to pass on beside the usual
// ones; calls, where it is not nil, gets what became of each call.
func (s *service) work(r *http.Request, pass http.Header, calls *[]meshbench.CallReflection) *failure {
	if s.node.Latency != nil {
		s.alarms.wait(r.Context(), s.chance.time(*s.node.Latency))
	}
	if e := s.node.Errors; e != nil && s.chance.percent(e.Percent) {
		return &failure{e.Status, s.name + " fails by chance, as it was told to"}
	}
	if len(s.callers) == 0 {
		return nil
	}
	header := passedOn(r.Header, pass)
	answers := make([]meshbench.CallReflection, len(s.callers))
	if s.node.Parallel {
		var group sync.WaitGroup
		for i, c := range s.callers {
			group.Go(func() { answers[i] = c.call(r, header, calls != nil) })
		}
		group.Wait()
	} else {
		for i, c := range s.callers {
			if answers[i] = c.call(r, header, calls != nil); answers[i].Error != "" {
				answers = answers[:i+1]
				break
			}
		}
	}
	if calls != nil {
		*calls = answers
	}
	for _, a := range answers {
		if a.Error != "" {
			return &failure{http.StatusBadGateway, s.name + ": " + a.To + ": " + a.Error}
		}
	}
	return nil
}

// The paths of the control port.
const (
	ReadyPath       = "/ready"       // 200 once the workload's port accepts connections
	SeenPath        = "/seen"        // meshbench.Seen as JSON
	MetricsPath     = "/metrics"     // Prometheus's text format
	ReflectionsPath = "/reflections" // the last requests that asked for a Reflection, as a JSON list, the newest last
)

func (s *service) seen() meshbench.Seen {
	seen := meshbench.Seen{Requests: s.requests.Load()}
	if header := s.peer.Load(); header != nil {
		seen.PeerName = PeerName(*header)
	}
	return seen
}

func (s *service) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+ReadyPath, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ready\n")
	})
	asJSON := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET "+SeenPath, func(w http.ResponseWriter, _ *http.Request) { asJSON(w, s.seen()) })
	mux.HandleFunc("GET "+ReflectionsPath, func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		last := append([]meshbench.Reflection{}, s.last...)
		s.mu.Unlock()
		asJSON(w, last)
	})
	mux.Handle("GET "+MetricsPath, s.metrics())
	return mux
}

// ReadSeen asks a service's control port, at host:port, what it has received.
func ReadSeen(ctx context.Context, client *http.Client, address string) (meshbench.Seen, error) {
	var seen meshbench.Seen
	err := readControl(ctx, client, address, SeenPath, &seen)
	return seen, err
}

// ReadReflections asks a service's control port, at host:port, for the last
// requests that asked for a Reflection; the newest is the last.
func ReadReflections(ctx context.Context, client *http.Client, address string) ([]meshbench.Reflection, error) {
	var last []meshbench.Reflection
	err := readControl(ctx, client, address, ReflectionsPath, &last)
	return last, err
}

func readControl(ctx context.Context, client *http.Client, address, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return json.NewDecoder(io.LimitReader(response.Body, 64<<20)).Decode(into)
}
