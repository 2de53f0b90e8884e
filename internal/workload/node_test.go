package workload

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
)

// start runs an echo service for the length of a test.
func start(t testing.TB, bodyBytes int) (base, control string) {
	t.Helper()
	return startService(t, Options{BodyBytes: bodyBytes})
}

// startService runs a service for the length of a test.
func startService(t testing.TB, o Options) (base, control string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	addresses := make(chan [2]string, 1)
	ended := make(chan error, 1)
	o.Listen, o.Control = "127.0.0.1:0", "127.0.0.1:0"
	o.Ready = func(l, c string) { addresses <- [2]string{l, c} }
	go func() { ended <- Serve(ctx, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	select {
	case a := <-addresses:
		return a[0], a[1]
	case <-time.After(30 * time.Second):
		t.Fatal("the service is not ready")
	}
	return "", ""
}

func seen(t *testing.T, control string) meshbench.Seen {
	t.Helper()
	s, err := ReadSeen(context.Background(), http.DefaultClient, control)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEchoAnswersAnything(t *testing.T) {
	base, control := start(t, 1024)
	var want uint64
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/", ""}, {"POST", "/a/b?c=d", strings.Repeat("x", 300_000)}, {"HEAD", "/", ""},
		{"DELETE", "/seen", ""}, {"PROPFIND", "/ready", "y"}, {"OPTIONS", "/", ""}, {"GET", "//double", ""},
	} {
		request, err := http.NewRequest(c.method, "http://"+base+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		length := 1024
		if c.method == "HEAD" {
			length = 0
		}
		if response.StatusCode != 200 || response.ContentLength != 1024 || len(body) != length {
			t.Errorf("%s %s: status %d, Content-Length %d, %d bytes", c.method, c.path, response.StatusCode, response.ContentLength, len(body))
		}
		want++
		if got := seen(t, control).Requests; got != want {
			t.Errorf("%s %s: %d requests seen, want %d: each counts once, the control port never", c.method, c.path, got, want)
		}
	}
}

func TestEchoKeepsTheConnection(t *testing.T) {
	base, control := start(t, 0)
	conn, err := net.Dial("tcp", base)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	request := "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	buf := make([]byte, 4096)
	for range 5 {
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil || !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 200 OK\r\n")) || !bytes.Contains(buf[:n], []byte("Content-Length: 0\r\n")) {
			t.Fatalf("answer %q, error %v", buf[:n], err)
		}
	}
	if got := seen(t, control).Requests; got != 5 {
		t.Errorf("%d requests seen, want 5", got)
	}
}

func TestEchoRemembersThePeer(t *testing.T) {
	base, control := start(t, 10)
	send := func(header string) {
		request, _ := http.NewRequest("GET", "http://"+base, nil)
		if header != "" {
			request.Header.Set("X-Forwarded-Client-Cert", header)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	}
	for _, c := range []struct{ header, want string }{
		{"", ""},
		{"By=spiffe://x/server;Hash=ab;URI=spiffe://x/client", "spiffe://x/client"},
		{"URI=spiffe://x/other", "spiffe://x/other"},
		{"", ""}, // the last request came without one
	} {
		send(c.header)
		if got := seen(t, control).PeerName; got != c.want {
			t.Errorf("after %q the peer is %q, want %q", c.header, got, c.want)
		}
	}
}

func TestServeFailsOnATakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, o := range []Options{
		{Listen: l.Addr().String()},
		{Listen: "127.0.0.1:0", Control: l.Addr().String()},
	} {
		e := meshbench.AsError(Serve(context.Background(), o))
		if e == nil || e.Code != meshbench.Unavailable || e.Hint == "" || !strings.Contains(e.Message, "address already in use") {
			t.Errorf("error %+v", e)
		}
	}
}

func TestPeerName(t *testing.T) {
	for _, c := range []struct{ header, want string }{
		{"", ""},
		{"URI=spiffe://a/b", "spiffe://a/b"},
		{"uri=spiffe://a/b", "spiffe://a/b"},
		{`By=spiffe://by;Hash=1;Subject="CN=x, URI=spiffe://no;O=y";URI=spiffe://yes`, "spiffe://yes"},
		{"URI=spiffe://first,URI=spiffe://last", "spiffe://last"},
		{"URI=spiffe://first,Hash=1", ""},
		{"URI=http://a;URI=spiffe://b", "spiffe://b"},
		{`URI="spiffe://a/b\"c"`, `spiffe://a/b"c`},
		{`Subject="never closed;URI=spiffe://a`, ""},
		{"By=spiffe://only", ""},
		{"URI=", ""}, {"URI", ""}, {"=;,=", ""},
	} {
		if got := PeerName(c.header); got != c.want {
			t.Errorf("PeerName(%q) = %q, want %q", c.header, got, c.want)
		}
	}
}

func FuzzPeerName(f *testing.F) {
	f.Add("By=spiffe://by;Hash=1;Subject=\"CN=x\";URI=spiffe://yes,URI=spiffe://last")
	f.Add(`URI="spiffe://a\"`)
	f.Add(`"\`)
	f.Fuzz(func(t *testing.T, header string) {
		if name := PeerName(header); name != "" && !strings.HasPrefix(name, "spiffe://") {
			t.Errorf("PeerName(%q) = %q: no SPIFFE name", header, name)
		}
	})
}

// BenchmarkEcho is the usual path as a client sees it: one connection, one
// request after the other, over the loopback device.
func BenchmarkEcho(b *testing.B) {
	base, _ := start(b, 1024)
	conn, err := net.Dial("tcp", base)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request := []byte("GET / HTTP/1.1\r\nHost: echo.test\r\nUser-Agent: meshbench\r\nX-Forwarded-Proto: http\r\nX-Request-Id: 6c0f4fd9-6bd0-4b9a-8a6e-0a2d3f4c5b6a\r\n\r\n")
	buf := make([]byte, 8192)
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		for got := 0; ; {
			n, err := conn.Read(buf[got:])
			if err != nil {
				b.Fatal(err)
			}
			got += n
			if end := bytes.Index(buf[:got], []byte("\r\n\r\n")); end > 0 && got == end+4+1024 {
				break
			}
		}
	}
}
