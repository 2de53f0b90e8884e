package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench"
)

// serveRaw runs a server that hands every connection to handle, and returns
// its address.
func serveRaw(t *testing.T, handle func(c *net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// answer reads requests without a body and lets reply write the answer to the
// n-th of this connection; it ends when reply reports false.
func answer(reply func(c *net.TCPConn, n int) bool) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		buffer := make([]byte, 4096)
		seen := 0
		for n := 0; ; {
			k, err := c.Read(buffer)
			if err != nil {
				return
			}
			for _, b := range buffer[:k] {
				// Requests end with an empty line.
				switch {
				case b == '\n' && (seen == 1):
					seen = 0
					if !reply(c, n) {
						return
					}
					n++
				case b == '\n':
					seen = 1
				case b != '\r':
					seen = 0
				}
			}
		}
	}
}

func write(text string) func(*net.TCPConn, int) bool {
	return func(c *net.TCPConn, _ int) bool {
		_, err := io.WriteString(c, text)
		return err == nil
	}
}

const good = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

// job is a short load on an address.
func job(address string) Job {
	return Job{
		Target: meshbench.Target{URL: "http://" + address + "/x"}, Rate: 400, Arrivals: meshbench.Poisson,
		Connections: 4, KeepAlive: true, Timeout: meshbench.Duration(20 * time.Second),
		Duration: meshbench.Duration(300 * time.Millisecond), Seed: 42,
	}
}

// exact holds what must be true of every result, whatever happened.
func exact(t *testing.T, r meshbench.LoadResult) {
	t.Helper()
	if sum := r.Completed + r.Errored + r.TimedOut + r.Skipped + r.Unfinished; sum != r.Planned {
		t.Errorf("planned %d is not completed %d + errored %d + timed out %d + skipped %d + unfinished %d",
			r.Planned, r.Completed, r.Errored, r.TimedOut, r.Skipped, r.Unfinished)
	}
	var classes uint64
	for _, n := range r.Errors {
		classes += n
	}
	if classes != r.Errored {
		t.Errorf("%d errored, %v", r.Errored, r.Errors)
	}
	if r.Response.Count != r.Completed || r.Service.Count != r.Completed || r.ErrorResponse.Count != r.Errored {
		t.Errorf("completed %d: %d responses, %d services; errored %d: %d", r.Completed, r.Response.Count, r.Service.Count, r.Errored, r.ErrorResponse.Count)
	}
	if r.Lateness != nil && r.Lateness.Count != r.Planned {
		t.Errorf("planned %d, %d latenesses", r.Planned, r.Lateness.Count)
	}
	if r.ConnectionWait.Count > r.Planned {
		t.Errorf("planned %d, %d waited", r.Planned, r.ConnectionWait.Count)
	}
	var batched uint64
	for _, b := range r.Batches {
		batched += uint64(b.Count)
	}
	if batched != r.Completed {
		t.Errorf("%d of %d completed are in batches", batched, r.Completed)
	}
}

// planned counts the arrivals that a job's seed fixes in its counted time.
func planned(j Job) uint64 {
	j = j.WithDefaults()
	a := newArrivals(j)
	warm := int64(j.Warmup)
	var n uint64
	for at := a.next(); at < warm+int64(j.Duration); at = a.next() {
		if at >= warm {
			n++
		}
	}
	return n
}

func run(t *testing.T, j Job) meshbench.LoadResult {
	t.Helper()
	r, err := Run(t.Context(), j, nil)
	if err != nil {
		t.Fatal(err)
	}
	exact(t, r)
	if !j.Rate.IsMax() && r.Planned != planned(j) {
		t.Errorf("planned %d, the seed says %d", r.Planned, planned(j))
	}
	return r
}

// loops runs a test with both loops and both ways to use connections.
func loops(t *testing.T, address string, body func(t *testing.T, j Job)) {
	for _, max := range []bool{false, true} {
		for _, keep := range []bool{true, false} {
			t.Run(fmt.Sprintf("max=%t,keep_alive=%t", max, keep), func(t *testing.T) {
				j := job(address)
				j.KeepAlive = keep
				if max {
					j.Rate, j.Duration = meshbench.RateMax, meshbench.Duration(100*time.Millisecond)
				}
				body(t, j)
			})
		}
	}
}

func TestGoodServers(t *testing.T) {
	for name, reply := range map[string]func(*net.TCPConn, int) bool{
		"length":  write(good),
		"chunked": write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\n"),
		"byte by byte": func(c *net.TCPConn, _ int) bool {
			for _, b := range []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n") {
				if _, err := c.Write([]byte{b}); err != nil {
					return false
				}
			}
			return true
		},
		"closing": func(c *net.TCPConn, n int) bool {
			write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na")(c, n)
			return false
		},
		"until the end": func(c *net.TCPConn, n int) bool { write("HTTP/1.1 200 OK\r\n\r\nhello")(c, n); return false },
		"half closed": func(c *net.TCPConn, n int) bool { // closes its side at once, and reads on
			write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na")(c, n)
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			return false
		},
		"large": func(c *net.TCPConn, n int) bool {
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n"); err != nil {
				return false
			}
			_, err := c.Write(make([]byte, 3_000_000))
			return err == nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			loops(t, serveRaw(t, answer(reply)), func(t *testing.T, j Job) {
				if name == "large" && !j.Rate.IsMax() {
					j.Rate = 50
				}
				r := run(t, j)
				if r.Completed == 0 || r.Completed != r.Planned {
					t.Errorf("%d of %d completed: %v", r.Completed, r.Planned, r.Errors)
				}
				if r.BytesRead == 0 || r.BytesWritten == 0 {
					t.Errorf("%d bytes read, %d written", r.BytesRead, r.BytesWritten)
				}
				if len(r.ConnectionErrors) > 0 {
					t.Errorf("connection errors: %v", r.ConnectionErrors)
				}
			})
		})
	}
}

func TestHostileServers(t *testing.T) {
	reset := func(c *net.TCPConn, _ int) bool { _ = c.SetLinger(0); return false }
	for _, c := range []struct {
		name    string
		classes []string // all errors are of these
		handle  func(*net.TCPConn)
	}{
		{"garbage", []string{"malformed_response"}, answer(write("\x00\x01\x02 nonsense\n"))},
		{"another protocol", []string{"malformed_response"}, answer(write("SSH-2.0-x\r\n"))},
		{"endless head", []string{"malformed_response"}, answer(func(c *net.TCPConn, _ int) bool {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for range 100_000 {
				if _, err := io.WriteString(c, "X-Filler: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"); err != nil {
					return false
				}
			}
			return true
		})},
		{"reset", []string{"connection_reset"}, answer(reset)},
		{"reset within the response", []string{"connection_reset", "truncated_response"}, answer(func(c *net.TCPConn, n int) bool {
			write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel")(c, n)
			return reset(c, n)
		})},
		{"closed", []string{"connection_closed"}, answer(func(*net.TCPConn, int) bool { return false })},
		{"closed at once", []string{"connection_closed", "connection_reset"}, func(*net.TCPConn) {}},
		{"half closed", []string{"connection_closed"}, answer(func(c *net.TCPConn, _ int) bool {
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			return false
		})},
		{"cut short", []string{"truncated_response"}, answer(func(c *net.TCPConn, n int) bool {
			write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel")(c, n)
			return false
		})},
		{"chunk cut short", []string{"truncated_response"}, answer(func(c *net.TCPConn, n int) bool {
			write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhel")(c, n)
			return false
		})},
		{"too much at once", []string{"extra_data"}, answer(write(good + "more"))},
		{"not what was wanted", []string{"status_503"}, answer(write("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			loops(t, serveRaw(t, c.handle), func(t *testing.T, j Job) {
				r := run(t, j)
				if r.Completed > 0 || r.Errored == 0 {
					t.Fatalf("%d completed, %d errored", r.Completed, r.Errored)
				}
				for class, n := range r.Errors {
					known := false
					for _, want := range c.classes {
						known = known || class == want
					}
					if !known {
						t.Errorf("%d errors of class %s", n, class)
					}
				}
				if len(r.Response.Values) > 0 && r.TimedOut == 0 {
					t.Errorf("quantiles of no response: %v", r.Response.Values)
				}
			})
		})
	}
}

// More than the response, after it, on a connection that is idle: no request
// is to blame, but it is told, and the connection is given up.
func TestExtraDataOnAnIdleConnection(t *testing.T) {
	var connections atomic.Int64
	address := serveRaw(t, func(c *net.TCPConn) {
		connections.Add(1)
		answer(func(c *net.TCPConn, n int) bool {
			write(good)(c, n)
			time.Sleep(20 * time.Millisecond)
			write("more")(c, n)
			return true
		})(c)
	})
	j := job(address)
	j.Connections, j.Rate, j.Arrivals = 2, 5, meshbench.Constant
	j.Duration = meshbench.Duration(time.Second)
	// On a busy machine the bytes may come so late that they meet the next
	// request, and are its malformed response.
	for range 10 {
		before := connections.Load()
		r := run(t, j)
		if r.ConnectionErrors["extra_data"] > 0 {
			if opened := connections.Load() - before; opened < 3 {
				t.Errorf("%d connections: the one with too much was kept", opened)
			}
			return
		}
		if r.Errors["malformed_response"] == 0 {
			t.Fatalf("the bytes were not seen: %v", r.Errors)
		}
	}
	t.Error("no bytes met an idle connection")
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	loops(t, address, func(t *testing.T, j Job) {
		r := run(t, j)
		if r.Errored != r.Planned || r.Errors["connection_refused"] != r.Planned || r.Planned == 0 || r.Sent != 0 {
			t.Errorf("planned %d, sent %d: %v", r.Planned, r.Sent, r.Errors)
		}
		// The closed loop pauses between its attempts: 4 connections, 100 ms,
		// pauses of 1, 2, 4 ... ms.
		if j.Rate.IsMax() && r.Planned > 4*10 {
			t.Errorf("%d attempts", r.Planned)
		}
	})
}

func TestAssertedStatus(t *testing.T) {
	address := serveRaw(t, answer(write("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")))
	for _, c := range []struct {
		assertions []meshbench.Assertion
		completes  bool
	}{
		{nil, false},
		{[]meshbench.Assertion{{Status: 404}}, true},
		{[]meshbench.Assertion{{Status: 404}, {Status: 404}}, true},
		{[]meshbench.Assertion{{Status: 200}}, false},
		{[]meshbench.Assertion{{Status: 404}, {Status: 200}}, false},
	} {
		j := job(address)
		j.Assertions = c.assertions
		r := run(t, j)
		if (r.Completed == r.Planned) != c.completes || (r.Errors["status_404"] == r.Planned) == c.completes {
			t.Errorf("%v: %d of %d completed, %v", c.assertions, r.Completed, r.Planned, r.Errors)
		}
	}
}

// A server that stalls: what is in flight and what waits, sent or not, times
// out, measured from its intended start.
func TestTimeouts(t *testing.T) {
	loops(t, serveRaw(t, answer(func(c *net.TCPConn, _ int) bool { return true })), func(t *testing.T, j Job) {
		j.Timeout = meshbench.Duration(50 * time.Millisecond)
		r := run(t, j)
		if r.TimedOut != r.Planned || r.Planned == 0 {
			t.Errorf("%d of %d timed out, %d skipped, %d unfinished, %v", r.TimedOut, r.Planned, r.Skipped, r.Unfinished, r.Errors)
		}
		if !j.Rate.IsMax() && r.LoadState != meshbench.Saturated {
			t.Errorf("the load is %s", r.LoadState)
		}
		for _, q := range meshbench.Quantiles {
			if _, known := r.Response.Values[q]; known {
				t.Errorf("%s is known", q)
			}
			if at := r.Response.AtLeast[q]; at < 49_000 {
				t.Errorf("%s is at least %v us", q, at)
			}
		}
		if r.Sent == 0 || r.Sent > r.Planned {
			t.Errorf("%d of %d were sent", r.Sent, r.Planned)
		}
	})
}

// The drain is over before the answers come: in flight is unfinished, never
// sent is skipped, and neither is forgotten in the quantiles.
func TestUnfinished(t *testing.T) {
	loops(t, serveRaw(t, answer(func(c *net.TCPConn, _ int) bool { return true })), func(t *testing.T, j Job) {
		j.Drain = meshbench.Duration(time.Millisecond)
		r := run(t, j)
		if r.Unfinished != 4 || r.TimedOut != 0 {
			t.Errorf("%d unfinished, %d timed out", r.Unfinished, r.TimedOut)
		}
		if !j.Rate.IsMax() && (r.Skipped != r.Planned-4 || r.Skipped == 0) {
			t.Errorf("%d of %d skipped", r.Skipped, r.Planned)
		}
		if _, known := r.Response.Values["p50"]; known {
			t.Error("p50 is known")
		}
	})
}

// A stale connection: the server closes it, in order or by reset, just when
// the next request comes. Such a request is an error and not tried again.
func TestARetryIsNeverSilent(t *testing.T) {
	var requests atomic.Int64
	address := serveRaw(t, answer(func(c *net.TCPConn, n int) bool {
		requests.Add(1)
		if n == 2 {
			return false
		}
		return write(good)(c, n)
	}))
	for _, rate := range []meshbench.Rate{400, meshbench.RateMax} {
		errored := uint64(0)
		for i := 0; errored == 0 && i < 20; i++ { // on a busy machine a run is too slow for three requests per connection
			requests.Store(0)
			j := job(address)
			j.Rate = rate
			r := run(t, j)
			if got := uint64(requests.Load()); got != r.Sent {
				t.Errorf("rate %s: %d sent, the server saw %d", rate, r.Sent, got)
			}
			errored = r.Errored
		}
		if errored == 0 {
			t.Errorf("rate %s: no request died on a stale connection", rate)
		}
	}
}

// The end comes at random points: the sum is exact all the same, and what was
// planned is what was due by then.
func TestCancel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	address := serveRaw(t, answer(func(c *net.TCPConn, n int) bool {
		if n%7 == 6 {
			time.Sleep(30 * time.Millisecond)
		}
		return write(good)(c, n)
	}))
	for range 12 {
		j := job(address)
		j.Rate, j.KeepAlive = 3000, r.IntN(2) == 0
		if r.IntN(3) == 0 {
			j.Rate = meshbench.RateMax
		}
		j.Calibration = meshbench.Duration(5 * time.Millisecond)
		j.Warmup = meshbench.Duration(30 * time.Millisecond)
		j.Duration = meshbench.Duration(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(120))*time.Millisecond)
		result, err := Run(ctx, j, nil)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v", err)
		}
		exact(t, result)
	}
}

// Requests that do not fit into the socket are sent in parts, and a server
// that answers before it has read them is no trouble.
func TestLargeRequests(t *testing.T) {
	const size = 1 << 20
	t.Run("read slowly", func(t *testing.T) {
		address := serveRaw(t, func(c *net.TCPConn) {
			_ = c.SetReadBuffer(64 << 10)
			buffer := make([]byte, 16<<10)
			for total := 0; ; {
				n, err := c.Read(buffer)
				if err != nil {
					return
				}
				if total += n; total >= size {
					total = 0
					if !write(good)(c, 0) {
						return
					}
				}
			}
		})
		j := job(address)
		j.Rate, j.Request = 20, meshbench.Request{Method: "POST", BodyBytes: size}
		if r := run(t, j); r.Completed != r.Planned || r.BytesWritten < r.Planned*size {
			t.Errorf("%d of %d completed, %d bytes written: %v", r.Completed, r.Planned, r.BytesWritten, r.Errors)
		}
	})
	t.Run("answered early", func(t *testing.T) {
		address := serveRaw(t, func(c *net.TCPConn) {
			buffer := make([]byte, 1024)
			if _, err := c.Read(buffer); err != nil {
				return
			}
			write("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")(c, 0)
			_, _ = io.Copy(io.Discard, c)
		})
		j := job(address)
		j.Rate, j.Request = 20, meshbench.Request{Method: "POST", BodyBytes: size}
		if r := run(t, j); r.Errors["status_413"] != r.Planned {
			t.Errorf("%d planned: %v", r.Planned, r.Errors)
		}
	})
}

// Without descriptors the requests fail as this machine's own fault.
func TestNoDescriptorsLeft(t *testing.T) {
	address := serveRaw(t, answer(write(good)))
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	j := job(address)
	j.Connections = int(before.Cur)
	if before.Cur > maxConnections {
		limited := before
		limited.Cur = 1000
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limited); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) }()
		j.Connections = 1000
	}
	_, err := Run(t.Context(), j, nil)
	var e *meshbench.Error
	if !errors.As(err, &e) || e.Code != meshbench.Invalid || e.Hint == "" {
		t.Errorf("%v", err)
	}
}
