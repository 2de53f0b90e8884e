package origin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/behavior/wire"
)

// begin runs an instance for the length of a test.
func begin(t *testing.T) (at, control string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan [2]string, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, Options{Listen: "127.0.0.1:0", Control: "127.0.0.1:0", Service: "echo", Instance: 1,
			Ready: func(l, c string) { ready <- [2]string{l, c} }})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	a := <-ready
	return a[0], "http://" + a[1]
}

func script(t *testing.T, control, key string, answers ...Answer) {
	t.Helper()
	data, err := json.Marshal(Script{answers})
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodPut, control+ScriptPath+"?key="+key, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil || answer.StatusCode != 200 {
		t.Fatal(answer, err)
	}
	answer.Body.Close()
}

func records(t *testing.T, control, key string) []Record {
	t.Helper()
	answer, err := http.Get(control + RecordsPath + "?key=" + key)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var out []Record
	if err := json.NewDecoder(answer.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func dial(t *testing.T, at string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c, bufio.NewReader(c)
}

func TestKeepsWhatArrivesAsItIs(t *testing.T) {
	at, control := begin(t)
	c, r := dial(t, at)
	io.WriteString(c, "POST /a//b HTTP/1.1\r\nhOST: x\r\nX-Probe: k\r\nX-Odd_Name:  v \r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: t\r\n\r\n")
	m, err := wire.ReadHead(r)
	if err == nil {
		err = m.ReadAnswerBody(r, "POST")
	}
	if err != nil || m.Status() != 200 || string(m.Body) != "echo" {
		t.Fatalf("answer %+v, %v", m, err)
	}
	all := records(t, control, "k")
	if len(all) != 1 {
		t.Fatalf("%d records", len(all))
	}
	got := all[0]
	if got.Service != "echo" || got.Instance != 1 || got.Message.Start != "POST /a//b HTTP/1.1" || got.Message.Fields[0].Name != "hOST" ||
		got.Message.Get("x-odd_name") != "v" || string(got.Message.Body) != "abc" || got.BodyBytes != 3 ||
		len(got.Message.Trailers) != 1 || got.Message.Framing != wire.ByChunks || got.Fault != "" {
		t.Errorf("record %+v", got)
	}
}

func TestAnswersAsTold(t *testing.T) {
	at, control := begin(t)
	script(t, control, "k", Answer{Then: Reset}, Answer{Pieces: []Piece{{Text: "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"}}, Then: Close}, Answer{})
	const request = "GET / HTTP/1.1\r\nHost: x\r\nX-Probe: k\r\n\r\n"
	for i, want := range []string{"", "HTTP/1.1 503 No", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK"} {
		c, r := dial(t, at)
		io.WriteString(c, request)
		m, err := wire.ReadHead(r)
		if m.Start != want || (want == "") != (err != nil) {
			t.Errorf("answer %d: %q, %v", i, m.Start, err)
		}
	}
	if n := len(records(t, control, "k")); n != 4 {
		t.Errorf("%d records", n)
	}
}

func TestAnswersBeforeTheBody(t *testing.T) {
	at, control := begin(t)
	script(t, control, "k", Answer{Early: true, Pieces: []Piece{{Text: "HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n"}}})
	c, r := dial(t, at)
	io.WriteString(c, "POST / HTTP/1.1\r\nX-Probe: k\r\nContent-Length: 1000\r\n\r\nsome")
	if m, err := wire.ReadHead(r); m.Status() != 413 {
		t.Errorf("answer %+v, %v", m, err)
	}
}

func TestNoticesWhoGoesAway(t *testing.T) {
	at, control := begin(t)
	script(t, control, "k", Answer{DelayMS: 60_000})
	c, _ := dial(t, at)
	io.WriteString(c, "GET / HTTP/1.1\r\nX-Probe: k\r\n\r\n")
	for len(records(t, control, "k")) == 0 {
		time.Sleep(5 * time.Millisecond)
	}
	c.Close()
	for !records(t, control, "k")[0].Abandoned {
		time.Sleep(5 * time.Millisecond)
	}
}

// TestRestart answers what is under way, closes what is idle, and comes back.
func TestRestart(t *testing.T) {
	at, control := begin(t)
	script(t, control, "slow", Answer{DelayMS: 300})
	idle, idleReader := dial(t, at)
	io.WriteString(idle, "GET / HTTP/1.1\r\n\r\n")
	if m, err := wire.ReadHead(idleReader); m.Status() != 200 || m.ReadAnswerBody(idleReader, "GET") != nil {
		t.Fatal(m, err)
	}
	busy, busyReader := dial(t, at)
	io.WriteString(busy, "GET / HTTP/1.1\r\nX-Probe: slow\r\n\r\n")
	for len(records(t, control, "slow")) == 0 {
		time.Sleep(5 * time.Millisecond)
	}
	done := make(chan error, 1)
	go func() {
		answer, err := http.Post(control+RestartPath+"?ms=600", "", nil)
		if err == nil {
			answer.Body.Close()
		}
		done <- err
	}()
	if _, err := idleReader.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: %v", err)
	}
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("it listens while it restarts")
	} else if !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
	if m, err := wire.ReadHead(busyReader); m.Status() != 200 {
		t.Errorf("what was under way: %+v, %v", m, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c, r := dial(t, at)
	io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
	if m, err := wire.ReadHead(r); m.Status() != 200 {
		t.Errorf("after the restart: %+v, %v", m, err)
	}
}

func TestServeFailsOnATakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, o := range []Options{{Listen: l.Addr().String(), Control: "127.0.0.1:0"}, {Listen: "127.0.0.1:0", Control: l.Addr().String()}} {
		if e := meshbench.AsError(Serve(context.Background(), o)); e == nil || e.Code != meshbench.Unavailable {
			t.Errorf("error %+v", e)
		}
	}
}
