package load

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
)

// Job is what one generator process is told to do. WithDefaults tells what
// zero values mean.
type Job struct {
	// Target is the http URL, and the Host header where it is not the URL's.
	Target meshbench.Target `json:"target"`
	// Address is the ip:port to connect to, where it is not the URL's.
	Address string `json:"address,omitempty"`
	// Request is what is sent. Its path is appended to the URL's, which stands
	// alone where it is empty or "/".
	Request meshbench.Request `json:"request"`
	// Assertions must all hold for a response to count as completed; without
	// any, a status below 400 is required.
	Assertions []meshbench.Assertion `json:"assertions,omitempty"`

	Rate        meshbench.Rate     `json:"rate"`     // requests per second of all workers together; RateMax is closed loop
	Arrivals    meshbench.Arrivals `json:"arrivals"` // default Poisson; no meaning in closed loop
	Connections int                `json:"connections"`
	// KeepAlive keeps the connections; without it every request opens one of
	// its own, of which there are at most Connections at a time.
	KeepAlive bool               `json:"keep_alive"`
	Timeout   meshbench.Duration `json:"timeout"`  // from the intended start; default 10s
	Warmup    meshbench.Duration `json:"warmup"`   // leading time at the same rate that is not counted
	Duration  meshbench.Duration `json:"duration"` // counted time
	// Drain is how long, after the last arrival, answers are waited for.
	// Default: Timeout, within which every request is decided.
	Drain meshbench.Duration `json:"drain"`
	Seed  uint64             `json:"seed"` // of the arrivals

	// CPUs are those of which worker i uses the i-th (modulo their number) for
	// its loop; empty: wherever the system puts it.
	CPUs []int `json:"cpus,omitempty"`
	// Calibration is how long the loop spins before, and again after, the load
	// to see the machine's own gaps (DefaultCalibration); 0: they stay unknown.
	Calibration meshbench.Duration `json:"calibration"`

	WorkerIndex int `json:"worker_index"`
	WorkerCount int `json:"worker_count"` // default 1
}

// DefaultCalibration sees gaps that come at least ten times a second.
const DefaultCalibration = meshbench.Duration(250 * time.Millisecond)

// The limits of a Job.
const (
	maxConnections = 65_536
	maxRate        = 10_000_000 // above what one core can begin
	maxTime        = 24 * time.Hour
	maxTimeout     = time.Hour // the end of every histogram
	maxBody        = 16 << 20
)

// WithDefaults returns j with its zero fields set: GET, Poisson arrivals, 32
// connections, a timeout of 10 s, a drain as long as the timeout, one worker.
func (j Job) WithDefaults() Job {
	set := func(d *meshbench.Duration, v time.Duration) {
		if *d == 0 {
			*d = meshbench.Duration(v)
		}
	}
	if j.Request.Method == "" {
		j.Request.Method = "GET"
	}
	if j.Arrivals == "" {
		j.Arrivals = meshbench.Poisson
	}
	if j.Connections == 0 {
		j.Connections = 32
	}
	if j.WorkerCount == 0 {
		j.WorkerCount = 1
	}
	set(&j.Timeout, 10*time.Second)
	set(&j.Drain, j.Timeout.Std())
	return j
}

// Validate tells what is wrong with a Job whose defaults are set; the error's
// code is invalid.
func (j Job) Validate() error {
	bad := func(format string, args ...any) *meshbench.Error {
		return meshbench.Errorf(meshbench.Invalid, format, args...)
	}
	if _, err := j.target(); err != nil {
		return err
	}
	if j.Address != "" {
		if _, err := netip.ParseAddrPort(j.Address); err != nil {
			return bad("the address %q is not ip:port", j.Address).WithHint("for example 127.0.0.1:8080 or [::1]:8080")
		}
	}
	if !token(j.Request.Method) || j.Request.Method == "CONNECT" {
		return bad("the method %q cannot be sent", j.Request.Method).WithHint("use a method such as GET or POST")
	}
	if !plainText(j.Target.Host) {
		return bad("the host %q has characters that a header cannot hold", j.Target.Host)
	}
	for name, value := range j.Request.Headers {
		if !token(name) || !plainText(value) {
			return bad("the header %q: %q cannot be sent", name, value).WithHint("names are tokens, values have no control characters")
		}
		switch strings.ToLower(name) {
		case "content-length", "transfer-encoding", "connection", "expect", "upgrade":
			return bad("the header %q is the generator's own", name).WithHint("framing and connections follow from the body and --connections")
		}
	}
	if n := max(len(j.Request.Body), j.Request.BodyBytes); n > maxBody || j.Request.BodyBytes < 0 {
		return bad("a body of %d bytes is not between 0 and %d", n, maxBody)
	}
	if p := j.Request.Path; p != "" && (p[0] != '/' || strings.ContainsAny(p, " #") || !plainText(p)) {
		return bad("the path %q cannot be sent", p).WithHint("it begins with / and has its special characters escaped: /a%%20b?c=d")
	}
	for _, a := range j.Assertions {
		if a.Status < 100 || a.Status > 599 {
			return bad("a response cannot have the status %d", a.Status).WithHint("an asserted status is of 100 to 599")
		}
	}
	if !(j.Rate > 0) || (!j.Rate.IsMax() && j.Rate > maxRate) || math.IsNaN(float64(j.Rate)) {
		return bad("the rate %s is not a positive number of requests per second up to %d, nor max", j.Rate, maxRate)
	}
	if j.Arrivals != meshbench.Constant && j.Arrivals != meshbench.Poisson {
		return bad("arrivals %q are not known", j.Arrivals).WithHint("constant or poisson")
	}
	if j.Connections < 1 || j.Connections > maxConnections {
		return bad("%d connections are not between 1 and %d", j.Connections, maxConnections)
	}
	for _, d := range []struct {
		name      string
		d         meshbench.Duration
		low, high time.Duration
	}{
		{"timeout", j.Timeout, time.Microsecond, maxTimeout},
		{"warmup", j.Warmup, 0, maxTime},
		{"duration", j.Duration, time.Millisecond, maxTime},
		{"drain", j.Drain, 0, maxTimeout},
		{"calibration", j.Calibration, 0, time.Minute},
	} {
		if d.d.Std() < d.low || d.d.Std() > d.high {
			return bad("the %s %s is not between %s and %s", d.name, d.d, d.low, d.high)
		}
	}
	if j.WorkerCount < 1 || j.WorkerIndex < 0 || j.WorkerIndex >= j.WorkerCount {
		return bad("worker %d of %d does not exist", j.WorkerIndex, j.WorkerCount)
	}
	for _, c := range j.CPUs {
		if c < 0 || c >= 1024 {
			return bad("CPU %d does not exist", c)
		}
	}
	return nil
}

// target returns the parsed URL.
func (j Job) target() (*url.URL, error) {
	u, err := url.Parse(j.Target.URL)
	switch {
	case err != nil:
		return nil, meshbench.Errorf(meshbench.Invalid, "%q is not a URL: %w", j.Target.URL, err).WithHint("for example http://127.0.0.1:8080/")
	case u.Scheme == "https":
		return nil, meshbench.Errorf(meshbench.Invalid, "%s: https is not spoken by the generator in this version", j.Target.URL).
			WithHint("use the http:// address of the service; a mesh adds TLS between its own proxies")
	case u.Scheme != "http":
		return nil, meshbench.Errorf(meshbench.Invalid, "%q does not begin with http://", j.Target.URL).WithHint("for example http://127.0.0.1:8080/")
	case u.Hostname() == "":
		return nil, meshbench.Errorf(meshbench.Invalid, "%q names no host", j.Target.URL).WithHint("for example http://127.0.0.1:8080/")
	case u.User != nil:
		return nil, meshbench.Errorf(meshbench.Invalid, "the URL carries a user name, which is not sent").WithHint("use an Authorization header")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return nil, meshbench.Errorf(meshbench.Invalid, "%q: %s is not a port", j.Target.URL, p)
		}
	}
	return u, nil
}

// path returns what stands in the request line.
func (j Job) path(u *url.URL) string {
	own, more := u.RequestURI(), j.Request.Path
	switch {
	case more == "" || more == "/":
		return own
	case u.RawQuery != "" && strings.Contains(more, "?"):
		more = strings.Replace(more, "?", "?"+u.RawQuery+"&", 1)
	case u.RawQuery != "":
		more += "?" + u.RawQuery
	}
	return strings.TrimSuffix(u.EscapedPath(), "/") + more
}

// request renders the bytes that every request of a valid Job is.
func (j Job) request() []byte {
	u, err := j.target()
	if err != nil {
		panic("load: request of a job that was not validated: " + err.Error())
	}
	host := j.Target.Host
	agent := false
	var names []string
	for name := range j.Request.Headers {
		switch strings.ToLower(name) {
		case "host":
			if host == "" {
				host = j.Request.Headers[name]
			}
			continue
		case "user-agent":
			agent = true
		}
		names = append(names, name)
	}
	if host == "" {
		host = u.Host
	}
	sort.Strings(names)
	body := []byte(j.Request.Body)
	if len(body) == 0 {
		body = make([]byte, j.Request.BodyBytes)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", j.Request.Method, j.path(u), host)
	if !agent {
		b.WriteString("User-Agent: meshbench\r\n")
	}
	for _, name := range names {
		fmt.Fprintf(&b, "%s: %s\r\n", name, j.Request.Headers[name])
	}
	if !j.KeepAlive {
		b.WriteString("Connection: close\r\n")
	}
	switch j.Request.Method {
	case "POST", "PUT", "PATCH":
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	default:
		if len(body) > 0 {
			fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
		}
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// token tells whether s is a token of RFC 9110, section 5.6.2.
func token(s string) bool {
	for i := range len(s) {
		if !tokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func tokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// plainText tells whether s can be a header's value.
func plainText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// EngineName is the native engine: one epoll loop per worker.
const EngineName = "epoll"
