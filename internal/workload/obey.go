package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/websocket"

	"github.com/meshbench/meshbench"
)

// What makes a request a special one.
const (
	headerPrefix = "X-Meshbench-"
	queryPrefix  = "meshbench-"
	peerHeader   = "X-Forwarded-Client-Cert"
)

// Limits of what can be asked for.
const (
	longestDelay = time.Minute
	largestBody  = 64 << 20
	keptKeys     = 10_000 // of FailHeader
)

// commands is what a request asks of a service.
type commands struct {
	given http.Header // all of them, by their headers' names

	reflect, reflectAll bool
	status              int
	key                 string // of FailHeader
	times               uint64
	failWith            string // a status, "reset" or "close"
	delay, pause        time.Duration
	bodyBytes           int // -1: the usual
	headers, trailers   [][2]string
	cut                 string
	early               bool
	informational       int
	at                  string
}

// readCommands reads headers and query. The error says which is wrong.
func readCommands(r *http.Request) (c commands, err error) {
	c = commands{given: http.Header{}, bodyBytes: -1}
	if strings.Contains(r.URL.RawQuery, queryPrefix) {
		for name, values := range r.URL.Query() {
			if short, ok := strings.CutPrefix(name, queryPrefix); ok {
				c.given[http.CanonicalHeaderKey(headerPrefix+short)] = values
			}
		}
	}
	for name, values := range r.Header {
		if strings.HasPrefix(name, headerPrefix) {
			c.given[name] = values
		}
	}
	for name, values := range c.given {
		for _, value := range values {
			if err := c.read(name, strings.TrimSpace(value)); err != nil {
				return c, fmt.Errorf("%s: %s: %w", name, strconv.Quote(value), err)
			}
		}
	}
	return c, nil
}

func (c *commands) read(name, value string) (err error) {
	switch name {
	case meshbench.ReflectHeader:
		c.reflect, c.reflectAll = true, value == "all"
		if value != "1" && value != "all" {
			return fmt.Errorf("expected 1 or all")
		}
	case meshbench.StatusHeader:
		c.status, err = number(value, 200, 599)
	case meshbench.FailHeader:
		return c.readFail(value)
	case meshbench.DelayHeader:
		c.delay, err = duration(value)
	case meshbench.PauseHeader:
		c.pause, err = duration(value)
	case meshbench.BodyBytesHeader:
		c.bodyBytes, err = number(value, 0, largestBody)
	case meshbench.AnswerHeader:
		c.headers, err = field(c.headers, value)
	case meshbench.TrailerHeader:
		c.trailers, err = field(c.trailers, value)
	case meshbench.CutHeader:
		if c.cut = value; !slices.Contains([]string{"reset", "close", "half"}, value) {
			return fmt.Errorf("expected reset, close or half")
		}
	case meshbench.EarlyHeader:
		if c.early = value == "1"; !c.early {
			return fmt.Errorf("expected 1")
		}
	case meshbench.InformationalHeader:
		c.informational, err = number(value, 102, 199)
	case meshbench.AtHeader:
		c.at = value
	}
	// Others are of no meaning here: a later version's, or somebody else's.
	return err
}

// readFail reads KEY/N/WHAT.
func (c *commands) readFail(value string) error {
	parts := strings.Split(value, "/")
	if len(parts) != 3 || parts[0] == "" {
		return fmt.Errorf("expected KEY/N/WHAT, as in a/2/503")
	}
	n, err := number(parts[1], 0, 1<<30)
	if err != nil {
		return err
	}
	if parts[2] != "reset" && parts[2] != "close" {
		if _, err := number(parts[2], 200, 599); err != nil {
			return err
		}
	}
	c.key, c.times, c.failWith = parts[0], uint64(n), parts[2]
	return nil
}

func number(text string, low, high int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("expected a number from %d to %d", low, high)
	}
	return n, nil
}

func duration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > longestDelay {
		return 0, fmt.Errorf("expected a duration from 0s to %s, as in 300ms", longestDelay)
	}
	return d, nil
}

// field appends a header field written as "Name: value".
func field(fields [][2]string, text string) ([][2]string, error) {
	name, value, ok := strings.Cut(text, ":")
	switch name = strings.TrimSpace(name); strings.ToLower(name) {
	case "content-length", "transfer-encoding", "trailer":
		return fields, fmt.Errorf("this field is the server's own")
	}
	if !ok || name == "" || strings.ContainsAny(name, " \t") {
		return fields, fmt.Errorf("expected Name: value")
	}
	return append(fields, [2]string{name, strings.TrimSpace(value)}), nil
}

// passOn returns the commands that the services behind this one shall get.
func (c commands) passOn(mine bool) http.Header {
	out := http.Header{}
	if !mine {
		return c.given.Clone()
	}
	if c.reflectAll {
		out[meshbench.ReflectHeader] = []string{"all"}
	}
	return out
}

// onlyReflecting drops what another service is to obey.
func (c commands) onlyReflecting() commands {
	return commands{given: c.given, reflect: c.reflectAll, reflectAll: c.reflectAll, bodyBytes: -1}
}

// obey answers a special request.
func (s *service) obey(w http.ResponseWriter, r *http.Request, number uint64) int {
	peer := peerOf(r)
	s.remember(peer)
	seen := s.look(r, number, peer) // before reading: "100 Continue" ends the head
	c, err := readCommands(r)
	if len(c.given) > 0 {
		w.Header()[meshbench.ServiceHeader] = []string{s.name}
		w.Header()[meshbench.InstanceHeader] = []string{strconv.Itoa(s.instance)}
	}
	if err != nil {
		return (&failure{http.StatusBadRequest, s.name + ": " + err.Error()}).write(w)
	}
	mine := c.at == "" || c.at == s.name
	pass := c.passOn(mine)
	if !mine {
		c = c.onlyReflecting()
	}
	if c.key != "" {
		tries, fails := s.failing.try(c.key, c.times)
		seen.Tries = tries
		w.Header()[meshbench.TriesHeader] = []string{strconv.FormatUint(tries, 10)}
		if fails {
			if status, err := strconv.Atoi(c.failWith); err == nil {
				c.status = status
			} else {
				c.cut = c.failWith
			}
		}
	}
	if c.early {
		// Without this the server would read the body before the first byte.
		_ = http.NewResponseController(w).EnableFullDuplex()
		defer func() { _, _ = io.Copy(io.Discard, r.Body) }()
	} else {
		readBody(r, &seen)
	}
	if !pause(r.Context(), c.delay) {
		return 0 // the client is gone
	}
	if isWebSocket(r) && c.status == 0 && c.cut == "" {
		s.keep(c, seen)
		echoFrames(w, r)
		return http.StatusSwitchingProtocols
	}
	var failed *failure
	if s.busy && c.cut == "" {
		var calls *[]meshbench.CallReflection
		if c.reflectAll {
			calls = &seen.Calls
		}
		failed = s.work(r, pass, calls)
	}
	s.keep(c, seen)
	return s.answer(w, r, c, seen, failed)
}

// keep remembers a request that asked for it.
func (s *service) keep(c commands, seen meshbench.Reflection) {
	if !c.reflect {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.last) == keptReflections {
		s.last = slices.Delete(s.last, 0, 1)
	}
	s.last = append(s.last, seen)
}

// answer writes what was asked for and returns its status; 0: it was cut.
func (s *service) answer(w http.ResponseWriter, r *http.Request, c commands, seen meshbench.Reflection, failed *failure) int {
	body := s.body
	if c.bodyBytes >= 0 {
		body = filler(c.bodyBytes)
	}
	h, status := w.Header(), http.StatusOK
	h["Content-Type"] = s.kind
	if failed != nil {
		status, body = failed.status, []byte(failed.text+"\n")
		h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	}
	if c.status != 0 {
		status = c.status
	}
	if c.reflect {
		text, err := json.Marshal(seen)
		if err != nil {
			return (&failure{http.StatusInternalServerError, err.Error()}).write(w)
		}
		body = append(text, '\n')
		h["Content-Type"] = []string{"application/json"}
	}
	if c.cut != "" {
		cut(w, c.cut, status, body)
		return 0
	}
	if c.informational != 0 {
		w.WriteHeader(c.informational)
	}
	for _, f := range c.headers {
		h[f[0]] = append(h[f[0]], f[1])
	}
	for _, f := range c.trailers {
		h.Add("Trailer", f[0])
	}
	if len(c.trailers) == 0 && status != http.StatusNoContent && status != http.StatusNotModified {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(status)
	control := http.NewResponseController(w)
	if c.pause > 0 || c.early || len(c.trailers) > 0 {
		if control.Flush() != nil || !pause(r.Context(), c.pause) {
			return 0
		}
	}
	if r.Method != http.MethodHead && status != http.StatusNoContent && status != http.StatusNotModified {
		_, _ = w.Write(body)
	}
	for _, f := range c.trailers {
		h.Add(f[0], f[1])
	}
	if c.early {
		_ = control.Flush()
	}
	return status
}

// look notes what is known of a request before its body is read.
func (s *service) look(r *http.Request, number uint64, peer string) meshbench.Reflection {
	seen := meshbench.Reflection{
		Service: s.name, Instance: s.instance, Number: number,
		Method: r.Method, Target: r.RequestURI, Path: r.URL.Path, Proto: r.Proto, Host: r.Host,
		Trailers: [][2]string{}, ContentLength: r.ContentLength, RemoteAddress: r.RemoteAddr,
	}
	if peer != "" {
		seen.PeerName = PeerName(peer)
	}
	if c, ok := r.Context().Value(wireKey{}).(*wire); ok {
		seen.Headers, seen.Exact = c.headers(r)
	}
	if !seen.Exact {
		seen.Headers = sorted(r.Header)
	}
	return seen
}

// readBody reads a request to its end and notes what came.
func readBody(r *http.Request, seen *meshbench.Reflection) {
	hash := sha256.New()
	n, err := io.Copy(hash, r.Body)
	seen.BodyBytes, seen.BodySHA256 = n, hex.EncodeToString(hash.Sum(nil))
	if err != nil {
		seen.BodyError = err.Error()
	}
	seen.Trailers = sorted(r.Trailer)
}

// sorted lists headers in the order of their names.
func sorted(h http.Header) [][2]string {
	out := [][2]string{}
	for name, values := range h {
		for _, v := range values {
			out = append(out, [2]string{name, v})
		}
	}
	slices.SortStableFunc(out, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return out
}

// cut ends the connection instead of answering as agreed.
func cut(w http.ResponseWriter, how string, status int, body []byte) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the server closes the connection then
	}
	defer conn.Close()
	switch how {
	case "reset":
		if c, ok := conn.(*wire); ok {
			_ = c.SetLinger(0) // closing then sends RST
		}
	case "half":
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%s",
			status, http.StatusText(status), len(body), body[:len(body)/2])
	}
}

// failures counts the requests of each key.
type failures struct {
	mu    sync.Mutex
	tries map[string]uint64
	order []string
}

// try counts a request of a key and tells whether it is one of the first n.
func (f *failures) try(key string, n uint64) (tries uint64, fails bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tries == nil {
		f.tries = map[string]uint64{}
	}
	if _, known := f.tries[key]; !known {
		if len(f.order) == keptKeys {
			delete(f.tries, f.order[0])
			f.order = f.order[1:]
		}
		f.order = append(f.order, key)
	}
	f.tries[key]++
	return f.tries[key], f.tries[key] <= n
}

func isWebSocket(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// largestFrame bounds the messages that are echoed.
const largestFrame = 16 << 20

// echoFrames answers each WebSocket message with the same.
func echoFrames(w http.ResponseWriter, r *http.Request) {
	type message struct {
		data []byte
		kind byte
	}
	codec := websocket.Codec{
		Marshal: func(v any) ([]byte, byte, error) { m := v.(*message); return m.data, m.kind, nil },
		Unmarshal: func(data []byte, kind byte, v any) error {
			*v.(*message) = message{data, kind}
			return nil
		},
	}
	server := websocket.Server{
		Handshake: func(*websocket.Config, *http.Request) error { return nil }, // from whatever origin
		Handler: func(ws *websocket.Conn) {
			ws.MaxPayloadBytes = largestFrame
			for {
				var m message
				if codec.Receive(ws, &m) != nil || codec.Send(ws, &m) != nil {
					return
				}
			}
		},
	}
	server.ServeHTTP(w, r)
}
