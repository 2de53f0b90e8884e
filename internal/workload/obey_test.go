package workload

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/websocket"

	"github.com/meshbench/meshbench"
)

// raw sends bytes on a new connection and reads answers from it.
type raw struct {
	net.Conn
	*bufio.Reader
}

func dial(t *testing.T, address string) raw {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return raw{conn, bufio.NewReader(conn)}
}

func (c raw) Read(p []byte) (int, error) { return c.Reader.Read(p) }

func (c raw) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		t.Fatal(err)
	}
}

func (c raw) answer(t *testing.T, method string) (*http.Response, string) {
	t.Helper()
	response, err := http.ReadResponse(c.Reader, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func (c raw) reflection(t *testing.T) meshbench.Reflection {
	t.Helper()
	response, body := c.answer(t, "GET")
	var seen meshbench.Reflection
	if err := json.Unmarshal([]byte(body), &seen); err != nil || response.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("status %d, body %q: %v", response.StatusCode, body, err)
	}
	return seen
}

func TestReflectionIsWhatArrived(t *testing.T) {
	base, control := startService(t, Options{BodyBytes: 3, Service: "back", Instance: 1})
	c := dial(t, base)
	c.send(t, "POST http://other/a%2Fb?x=1 HTTP/1.1\r\nHost: h.test\r\nx-lower: 1\r\nX-Meshbench-Reflect: 1\r\n"+
		"X-UPPER:  two words \r\nx-lower: 2\r\nEmpty:\r\nX-Forwarded-Client-Cert: URI=spiffe://a/client\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n"+
		"3\r\nabc\r\n2\r\nde\r\n0\r\nX-End: done\r\n\r\n")
	sum := sha256.Sum256([]byte("abcde"))
	want := meshbench.Reflection{
		Service: "back", Instance: 1, Number: 1,
		Method: "POST", Target: "http://other/a%2Fb?x=1", Path: "/a/b", Proto: "HTTP/1.1", Host: "other", Exact: true,
		Headers: [][2]string{
			{"Host", "h.test"}, {"x-lower", "1"}, {"X-Meshbench-Reflect", "1"}, {"X-UPPER", "two words"}, {"x-lower", "2"}, {"Empty", ""},
			{"X-Forwarded-Client-Cert", "URI=spiffe://a/client"}, {"Transfer-Encoding", "chunked"}, {"Trailer", "X-End"},
		},
		Trailers: [][2]string{{"X-End", "done"}}, ContentLength: -1, BodyBytes: 5, BodySHA256: hex.EncodeToString(sum[:]),
		RemoteAddress: c.LocalAddr().String(), PeerName: "spiffe://a/client",
	}
	if difference := cmp.Diff(want, c.reflection(t)); difference != "" {
		t.Error(difference)
	}
	if got := want.Header("X-Lower"); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("Header: %v", got)
	}

	// The connection is kept, and each request's head is its own: also after
	// usual ones, with bodies and with 100-continue.
	c.send(t, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\na: b\r\n\r\nc: d")
	if response, body := c.answer(t, "POST"); response.StatusCode != 200 || body != "abc" || response.Header.Get(meshbench.ServiceHeader) != "" {
		t.Errorf("the usual answer: %v, body %q", response, body)
	}
	c.send(t, "PUT /2 HTTP/1.1\r\nHost: h\r\nexpect: 100-continue\r\nX-Meshbench-Reflect: 1\r\nContent-Length: 5\r\n\r\n")
	if response, _ := c.answer(t, "PUT"); response.StatusCode != 100 {
		t.Errorf("status %d, want 100", response.StatusCode)
	}
	c.send(t, "12345")
	seen := c.reflection(t)
	if !seen.Exact || seen.Number != 3 || seen.Headers[1] != [2]string{"expect", "100-continue"} || len(seen.Headers) != 4 || seen.BodyBytes != 5 || seen.PeerName != "" {
		t.Errorf("%+v", seen)
	}

	c.send(t, "OPTIONS * HTTP/1.1\r\nHost: h\r\nX-Meshbench-Reflect: 1\r\nX-Big: "+strings.Repeat("x", 100_000)+"\r\n\r\n")
	if seen := c.reflection(t); seen.Target != "*" || !seen.Exact || len(seen.Header("x-big")[0]) != 100_000 {
		t.Errorf("target %q, exact %v", seen.Target, seen.Exact)
	}
	c.send(t, "GET /old?meshbench-reflect=1 HTTP/1.0\r\n\r\n")
	if seen := c.reflection(t); seen.Proto != "HTTP/1.0" || seen.Host != "" || len(seen.Headers) != 0 || !seen.Exact {
		t.Errorf("%+v", seen)
	}

	last, err := ReadReflections(context.Background(), http.DefaultClient, control)
	if err != nil || len(last) != 4 || last[0].Method != "POST" || last[3].Proto != "HTTP/1.0" {
		t.Errorf("%d reflections were kept (%v)", len(last), err)
	}
}

func TestReflectionSaysWhereItIsNotExact(t *testing.T) {
	base, _ := start(t, 0)
	c := dial(t, base)
	one := "GET /%d HTTP/1.1\r\nHost: h\r\nx-b: 1\r\nx-a: 2\r\nX-Meshbench-Reflect: 1\r\n\r\n"
	c.send(t, fmt.Sprintf(one, 1)+fmt.Sprintf(one, 2)) // pipelined
	if first := c.reflection(t); !first.Exact || first.Headers[1][0] != "x-b" {
		t.Errorf("%+v", first)
	}
	if second := c.reflection(t); second.Target != "/2" || second.Exact || second.Headers[0] != [2]string{"X-A", "2"} {
		t.Errorf("%+v", second)
	}
}

func TestCommands(t *testing.T) {
	base, control := start(t, 10)
	for name, c := range map[string]struct {
		headers, path string
		want          string // of the answer, its Date left out
	}{
		"status":   {"X-Meshbench-Status: 503\r\n", "/", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 10\r\nContent-Type: application/octet-stream\r\nX-Meshbench-Instance: 0\r\nX-Meshbench-Service: echo\r\n\r\nabcdefghij"},
		"query":    {"", "/?meshbench-status=404&meshbench-body-bytes=2&a=b", "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nContent-Type: application/octet-stream\r\nX-Meshbench-Instance: 0\r\nX-Meshbench-Service: echo\r\n\r\nab"},
		"nothing":  {"X-Meshbench-Status: 204\r\n", "/", "HTTP/1.1 204 No Content\r\nContent-Type: application/octet-stream\r\nX-Meshbench-Instance: 0\r\nX-Meshbench-Service: echo\r\n\r\n"},
		"headers":  {"X-Meshbench-Header: x-loW: 1\r\nX-Meshbench-Header: x-loW: 2\r\n", "/", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Type: application/octet-stream\r\nX-Meshbench-Instance: 0\r\nX-Meshbench-Service: echo\r\nx-loW: 1\r\nx-loW: 2\r\n\r\nabcdefghij"},
		"trailer":  {"X-Meshbench-Trailer: X-Sum: 7\r\nX-Meshbench-Pause: 1ms\r\n", "/", "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTrailer: X-Sum\r\nX-Meshbench-Instance: 0\r\nX-Meshbench-Service: echo\r\nTransfer-Encoding: chunked\r\n\r\na\r\nabcdefghij\r\n0\r\nX-Sum: 7\r\n\r\n"},
		"early":    {"X-Meshbench-Informational: 103\r\nX-Meshbench-Body-Bytes: 1\r\n", "/", "HTTP/1.1 103 Early Hints\r\nContent-Type: application/octet-stream\r\nX-Meshbench-Instance: 0\r\nX-Meshbench-Service: echo\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Type: application/octet-stream\r\nX-Meshbench-Instance: 0\r\nX-Meshbench-Service: echo\r\n\r\na"},
		"wrong":    {"X-Meshbench-Delay: soon\r\n", "/", "HTTP/1.1 400 Bad Request\r\nContent-Length: 91\r\nContent-Type: text/plain; charset=utf-8\r\nX-Meshbench-Instance: 0\r\nX-Meshbench-Service: echo\r\n\r\necho: X-Meshbench-Delay: \"soon\": expected a duration from 0s to 1m0s, as in 300ms\n"},
		"of later": {"X-Meshbench-Colour: red\r\n", "/", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Type: application/octet-stream\r\nX-Meshbench-Instance: 0\r\nX-Meshbench-Service: echo\r\n\r\nabcdefghij"},
		"not here": {"X-Meshbench-Status: 503\r\nX-Meshbench-At: other\r\n", "/", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Type: application/octet-stream\r\nX-Meshbench-Instance: 0\r\nX-Meshbench-Service: echo\r\n\r\nabcdefghij"},
		"lower":    {"x-meshbench-body-bytes: 1\r\n", "/", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Type: application/octet-stream\r\nX-Meshbench-Instance: 0\r\nX-Meshbench-Service: echo\r\n\r\na"},
		"upper":    {"X-MESHBENCH-BODY-BYTES: 1\r\n", "/", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Type: application/octet-stream\r\nX-Meshbench-Instance: 0\r\nX-Meshbench-Service: echo\r\n\r\na"},
		"looks so": {"X-Workbench-Status: 503\r\n", "/", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Type: application/octet-stream\r\n\r\nabcdefghij"},
		"half":     {"X-Meshbench-Cut: half\r\n", "/", "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 10\r\n\r\nabcde"},
		"close":    {"X-Meshbench-Cut: close\r\n", "/", ""},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, base)
			conn.send(t, "GET "+c.path+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"+c.headers+"\r\n")
			got, err := io.ReadAll(conn.Reader)
			if err != nil {
				t.Fatal(err)
			}
			lines := slices.DeleteFunc(strings.SplitAfter(string(got), "\r\n"), func(l string) bool {
				return strings.HasPrefix(l, "Date: ") || l == "Connection: close\r\n"
			})
			if name == "wrong" { // its length is its own business
				c.want = strings.Replace(c.want, "Content-Length: 91\r\n", "", 1)
				lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "Content-Length: ") })
			}
			if difference := cmp.Diff(c.want, strings.Join(lines, "")); difference != "" {
				t.Error(difference)
			}
		})
	}
	if got := seen(t, control).Requests; got != 14 {
		t.Errorf("%d requests were counted, want 14: those that ask for something count too", got)
	}

	conn := dial(t, base)
	conn.send(t, "GET / HTTP/1.1\r\nHost: h\r\nX-Meshbench-Cut: reset\r\n\r\n")
	if _, err := conn.Reader.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a reset: %v", err)
	}
}

func TestCommandsRefuse(t *testing.T) {
	base, _ := start(t, 0)
	for _, header := range []string{
		"X-Meshbench-Reflect: yes", "X-Meshbench-Status: 600", "X-Meshbench-Status: x", "X-Meshbench-Fail: a/1", "X-Meshbench-Fail: /1/503",
		"X-Meshbench-Fail: a/-1/503", "X-Meshbench-Fail: a/1/99", "X-Meshbench-Delay: 2m", "X-Meshbench-Delay: -1s", "X-Meshbench-Body-Bytes: 1e9",
		"X-Meshbench-Header: novalue", "X-Meshbench-Header: Content-Length: 7", "X-Meshbench-Header: a b: c", "X-Meshbench-Trailer: : x",
		"X-Meshbench-Cut: off", "X-Meshbench-Early: 2", "X-Meshbench-Informational: 101", "X-Meshbench-Pause: 1",
	} {
		c := dial(t, base)
		c.send(t, "GET / HTTP/1.1\r\nHost: h\r\n"+header+"\r\n\r\n")
		name, _, _ := strings.Cut(header, ":")
		if response, body := c.answer(t, "GET"); response.StatusCode != 400 || !strings.HasPrefix(body, "echo: "+name+": ") || !strings.Contains(body, "\": ") {
			t.Errorf("%s: %d %q", header, response.StatusCode, body)
		}
	}
}

func TestFailCountsByKey(t *testing.T) {
	base, _ := start(t, 0)
	c := dial(t, base)
	for i, step := range []struct {
		fail          string
		status, tries int
	}{
		{"a/2/503", 503, 1}, {"b/1/404", 404, 1}, {"a/2/503", 503, 2}, {"a/2/503", 200, 3}, {"b/1/404", 200, 2}, {"c/0/500", 200, 1},
	} {
		c.send(t, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nX-Meshbench-Fail: "+step.fail+"\r\n\r\nx")
		response, _ := c.answer(t, "POST")
		if response.StatusCode != step.status || response.Header.Get(meshbench.TriesHeader) != fmt.Sprint(step.tries) {
			t.Errorf("step %d: status %d, tries %s", i, response.StatusCode, response.Header.Get(meshbench.TriesHeader))
		}
	}
	c.send(t, "GET / HTTP/1.1\r\nHost: h\r\nX-Meshbench-Fail: d/1/reset\r\n\r\n")
	if _, err := c.Reader.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a reset: %v", err)
	}
	c = dial(t, base)
	c.send(t, "GET / HTTP/1.1\r\nHost: h\r\nX-Meshbench-Fail: d/1/reset\r\nX-Meshbench-Reflect: 1\r\n\r\n")
	if seen := c.reflection(t); seen.Tries != 2 {
		t.Errorf("tries %d, want 2", seen.Tries)
	}

	var f failures
	for i := range keptKeys + 5 {
		f.try(fmt.Sprint(i), 1)
	}
	if len(f.tries) != keptKeys || len(f.order) != keptKeys {
		t.Errorf("%d keys are kept, want %d", len(f.tries), keptKeys)
	}
}

func TestEarlyAnswerComesBeforeTheBody(t *testing.T) {
	base, _ := start(t, 4)
	c := dial(t, base)
	c.send(t, "POST / HTTP/1.1\r\nHost: h\r\nX-Meshbench-Early: 1\r\nContent-Length: 1000\r\n\r\n")
	if response, body := c.answer(t, "POST"); response.StatusCode != 200 || body != "abcd" {
		t.Errorf("status %d, body %q", response.StatusCode, body)
	}
	c.send(t, strings.Repeat("x", 1000)+"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if response, body := c.answer(t, "GET"); response.StatusCode != 200 || body != "abcd" {
		t.Errorf("after it: status %d, body %q", response.StatusCode, body)
	}
}

func TestDelayEndsWithItsClient(t *testing.T) {
	base, control := start(t, 4)
	c := dial(t, base)
	c.send(t, "GET / HTTP/1.1\r\nHost: h\r\nX-Meshbench-Delay: 1m\r\nX-Meshbench-Reflect: 1\r\n\r\n")
	for seen(t, control).Requests == 0 {
		time.Sleep(time.Millisecond)
	}
	c.Close() // the service's end in start waits for no minute
	c = dial(t, base)
	c.send(t, "GET / HTTP/1.1\r\nHost: h\r\nX-Meshbench-Delay: 20ms\r\n\r\n")
	begin := time.Now()
	if response, _ := c.answer(t, "GET"); response.StatusCode != 200 || time.Since(begin) < 20*time.Millisecond {
		t.Errorf("status %d after %s", response.StatusCode, time.Since(begin))
	}
}

func TestWebSocketEchoes(t *testing.T) {
	base, _ := start(t, 4)
	config, err := websocket.NewConfig("ws://"+base+"/chat", "http://anywhere.test")
	if err != nil {
		t.Fatal(err)
	}
	ws, err := config.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	_ = ws.SetDeadline(time.Now().Add(30 * time.Second))
	for _, text := range []string{"hello", strings.Repeat("x", 100_000), ""} {
		var back string
		if err := websocket.Message.Send(ws, text); err != nil {
			t.Fatal(err)
		}
		if err := websocket.Message.Receive(ws, &back); err != nil || back != text {
			t.Errorf("%d bytes came back of %d: %v", len(back), len(text), err)
		}
	}
	var back []byte
	if err := websocket.Message.Send(ws, []byte{0, 255}); err != nil {
		t.Fatal(err)
	}
	if err := websocket.Message.Receive(ws, &back); err != nil || !slices.Equal(back, []byte{0, 255}) {
		t.Errorf("%v came back: %v", back, err)
	}

	// Another protocol to upgrade to is ignored, as HTTP allows.
	c := dial(t, base)
	c.send(t, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	if response, body := c.answer(t, "GET"); response.StatusCode != 200 || body != "abcd" || response.Header.Get(meshbench.ServiceHeader) != "" {
		t.Errorf("%v %q", response, body)
	}
}

// FuzzSpecial sends a head and a body of any kind: whatever comes, the
// service goes on.
func FuzzSpecial(f *testing.F) {
	f.Add("GET / HTTP/1.1\r\nHost: h\r\nX-Meshbench-Fail: a/1/503", "")
	f.Add("POST /?meshbench-reflect=1&meshbench-header=a:b HTTP/1.0\r\nx: y\r\n z", "abc")
	f.Add("POST / HTTP/1.1\r\nHost: h\r\nX-Meshbench-Reflect: 1\r\nTransfer-Encoding: chunked", "1\r\na\r\n0\r\n\r\n")
	base, control := start(f, 1)
	f.Fuzz(func(t *testing.T, head, body string) {
		conn, err := net.Dial("tcp", base)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
		_, _ = io.WriteString(conn, head+"\r\n\r\n"+body)
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
		if _, err := ReadSeen(context.Background(), http.DefaultClient, control); err != nil {
			t.Fatal(err)
		}
	})
}
