// Package origin is the application behind the mesh that the probes talk to:
// an HTTP/1.1 server that keeps every request as it arrived, byte by byte, and
// answers as it was told to. It knows a probe's requests by the field X-Probe;
// what it shall answer them with is told on its control port, so that nothing
// of it goes through the mesh.
package origin

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/behavior/wire"
)

// KeyField names the field by which a request belongs to a probe.
const KeyField = "X-Probe"

// The paths of the control port.
const (
	ReadyPath   = "/ready"   // GET: 200 once requests are taken
	ScriptPath  = "/script"  // PUT ?key=: a Script
	RecordsPath = "/records" // GET ?key=: []Record
	RestartPath = "/restart" // POST ?ms=: stop listening, answer what is under way, listen again so much later
)

// keptBytes is how much of a body a Record has.
const keptBytes = 4 << 10

// Script is how the requests of one key are answered: the first by the first
// answer and so on; the last one is for all that follow.
type Script struct {
	Answers []Answer `json:"answers"`
}

// Answer is one answer; without pieces it is 200 with the service's name.
type Answer struct {
	Early   bool    `json:"early,omitempty"` // before the request's body is read
	DelayMS int     `json:"delay_ms,omitempty"`
	Pieces  []Piece `json:"pieces,omitempty"`
	Then    Then    `json:"then,omitempty"`
}

// Piece is a part of an answer, written as it is.
type Piece struct {
	AfterMS int    `json:"after_ms,omitempty"`
	Text    string `json:"text"`
}

// Then is what becomes of the connection after an answer.
type Then string

// What can become of a connection.
const (
	Keep  Then = ""
	Close Then = "close"
	Reset Then = "reset"
	Echo  Then = "echo" // every byte is sent back, as after an upgrade
)

// Record is a request that arrived.
type Record struct {
	Service    string       `json:"service"`
	Instance   int          `json:"instance"`
	At         int64        `json:"at"`         // Unix time in nanoseconds
	Connection int          `json:"connection"` // numbered from 1
	Message    wire.Message `json:"message"`    // at most the first 4 KiB of its body
	BodyBytes  int          `json:"body_bytes"`
	BodySHA256 string       `json:"body_sha256"`
	Fault      string       `json:"fault,omitempty"` // what was wrong with it
	// Abandoned tells that the sender had gone away before it was answered.
	Abandoned bool `json:"abandoned,omitempty"`
}

// Options are of one instance.
type Options struct {
	Listen, Control string // addresses, host:port; port 0 chooses one
	Service         string
	Instance        int
	// Ready, if set, is called once with the addresses.
	Ready func(listen, control string)
}

type server struct {
	o       Options
	address string

	mu          sync.Mutex
	listener    net.Listener      // nil while it restarts
	connections map[net.Conn]bool // true: a request is under way
	number      int
	draining    bool
	closed      bool
	scripts     map[string]Script
	answered    map[string]int
	records     map[string][]*Record
}

// Serve runs an instance until ctx ends, which is no error.
func Serve(ctx context.Context, o Options) error {
	s := &server{
		o: o, connections: map[net.Conn]bool{}, scripts: map[string]Script{},
		answered: map[string]int{}, records: map[string][]*Record{},
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the probes' application cannot listen: %w", err)
	}
	control, err := net.Listen("tcp", o.Control)
	if err != nil {
		listener.Close()
		return meshbench.Errorf(meshbench.Unavailable, "the probes' application cannot listen: %w", err)
	}
	s.listener, s.address = listener, listener.Addr().String()
	go s.accept(listener)
	web := &http.Server{Handler: s.control(), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		web.Close()
	}()
	if o.Ready != nil {
		o.Ready(s.address, control.Addr().String())
	}
	err = web.Serve(control)
	s.mu.Lock()
	s.closed = true
	if s.listener != nil {
		s.listener.Close()
	}
	for c := range s.connections {
		c.Close()
	}
	s.mu.Unlock()
	if ctx.Err() != nil {
		return nil
	}
	return meshbench.Errorf(meshbench.Internal, "the probes' application ended: %w", err)
}

func (s *server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.closed || s.draining {
			s.mu.Unlock()
			c.Close()
			continue
		}
		s.number++
		n := s.number
		s.connections[c] = false
		s.mu.Unlock()
		go func() {
			s.serve(c, n)
			c.Close()
			s.mu.Lock()
			delete(s.connections, c)
			s.mu.Unlock()
		}()
	}
}

// busy marks a connection; false says that it shall end.
func (s *server) busy(c net.Conn, b bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connections[c] = b
	return !s.draining
}

func (s *server) serve(c net.Conn, number int) {
	r := bufio.NewReaderSize(c, 16<<10)
	for {
		if _, err := r.Peek(1); err != nil {
			return
		}
		s.busy(c, true)
		if !s.exchange(c, r, number) {
			return
		}
		if !s.busy(c, false) {
			return
		}
	}
}

// exchange reads and answers one request, and tells whether another may follow.
func (s *server) exchange(c net.Conn, r *bufio.Reader, number int) bool {
	m, err := wire.ReadHead(r)
	if err != nil {
		s.keep("", &Record{Connection: number, Message: m, Fault: err.Error()})
		return false
	}
	key := m.Get(KeyField)
	record := &Record{Connection: number, Message: m}
	s.keep(key, record)
	answer := s.next(key)
	if !answer.Early {
		if m.Get("Expect") != "" {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		err := m.ReadRequestBody(r)
		s.finish(record, m, err)
		if err != nil {
			return false
		}
	}
	if answer.DelayMS > 0 && s.gone(c, r, time.Duration(answer.DelayMS)*time.Millisecond) {
		s.mu.Lock()
		record.Abandoned = true
		s.mu.Unlock()
		return false
	}
	text := s.plain(m)
	if len(answer.Pieces) > 0 {
		for _, p := range answer.Pieces {
			if p.AfterMS > 0 && s.gone(c, r, time.Duration(p.AfterMS)*time.Millisecond) {
				s.mu.Lock()
				record.Abandoned = true
				s.mu.Unlock()
				return false
			}
			if _, err := io.WriteString(c, p.Text); err != nil {
				return false
			}
		}
	} else if answer.Then != Reset && answer.Then != Close {
		if _, err := io.WriteString(c, text); err != nil {
			return false
		}
	}
	switch answer.Then {
	case Close:
		return false
	case Reset:
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		return false
	case Echo:
		_, _ = io.Copy(c, r)
		return false
	}
	return !answer.Early && !hasClose(m)
}

func hasClose(m wire.Message) bool {
	for _, v := range wire.Values(m.Fields, "Connection") {
		if v == "close" {
			return true
		}
	}
	return len(m.Start) > 8 && m.Start[len(m.Start)-8:] == "HTTP/1.0" && m.Get("Connection") != "keep-alive"
}

// plain is the answer of a request without a script.
func (s *server) plain(m wire.Message) string {
	body := s.o.Service
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n"
	if m.Method() == http.MethodHead {
		return head
	}
	return head + body
}

// gone waits, and tells whether the sender went away meanwhile.
func (s *server) gone(c net.Conn, r *bufio.Reader, d time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(d))
	defer c.SetReadDeadline(time.Time{})
	begin := time.Now()
	_, err := r.Peek(1)
	var n net.Error
	if err == nil { // the next request is there already
		time.Sleep(d - time.Since(begin))
		return false
	}
	return !errors.As(err, &n) || !n.Timeout()
}

func (s *server) keep(key string, r *Record) {
	r.Service, r.Instance, r.At = s.o.Service, s.o.Instance, time.Now().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[key] = append(s.records[key], r)
}

// finish adds what came after the head.
func (s *server) finish(r *Record, m wire.Message, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := sha256.Sum256(m.Body)
	r.BodyBytes, r.BodySHA256 = len(m.Body), hex.EncodeToString(sum[:])
	m.Body = m.Body[:min(len(m.Body), keptBytes)]
	r.Message = m
	if err != nil {
		r.Fault = err.Error()
	}
}

func (s *server) next(key string) Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	script := s.scripts[key]
	n := s.answered[key]
	s.answered[key]++
	if len(script.Answers) == 0 {
		return Answer{}
	}
	return script.Answers[min(n, len(script.Answers)-1)]
}

// restart closes what is idle, lets what is under way be answered, and
// listens again later.
func (s *server) restart(d time.Duration) {
	s.mu.Lock()
	if s.listener == nil || s.closed {
		s.mu.Unlock()
		return
	}
	s.draining = true
	s.listener.Close()
	s.listener = nil
	for c, busy := range s.connections {
		if !busy {
			c.Close()
		}
	}
	s.mu.Unlock()
	time.Sleep(d)
	for range 100 {
		l, err := net.Listen("tcp", s.address)
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			if err == nil {
				l.Close()
			}
			return
		}
		if err == nil {
			s.draining, s.listener = false, l
			go s.accept(l)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *server) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+ReadyPath, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ready\n") })
	mux.HandleFunc("PUT "+ScriptPath, func(w http.ResponseWriter, r *http.Request) {
		var script Script
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<20)).Decode(&script); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.scripts[r.URL.Query().Get("key")] = script
	})
	mux.HandleFunc("GET "+RecordsPath, func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		out := []Record{}
		for _, record := range s.records[r.URL.Query().Get("key")] {
			out = append(out, *record)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	})
	mux.HandleFunc("POST "+RestartPath, func(w http.ResponseWriter, r *http.Request) {
		ms, err := strconv.Atoi(r.URL.Query().Get("ms"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.restart(time.Duration(ms) * time.Millisecond)
	})
	return mux
}
