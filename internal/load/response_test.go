package load

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// readAll feeds a response in pieces of a size and tells how it ended.
func readAll(data string, size int, head bool) (r response, used int, ok bool) {
	r.reset(head)
	for used < len(data) && r.state != responseDone {
		piece := []byte(data[used:min(used+size, len(data))])
		n, good := r.read(piece)
		used += n
		if !good {
			return r, used, false
		}
	}
	return r, used, true
}

func TestResponse(t *testing.T) {
	for _, c := range []struct {
		name, data string
		head       bool
		bad        bool
		open       bool // needs the connection's end, or more bytes
		status     int
		extra      int // bytes after the response
		closes     bool
	}{
		{name: "length", data: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200},
		{name: "no reason", data: "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", status: 200},
		{name: "bare line feeds", data: "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", status: 200},
		{name: "case of names", data: "HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh:5\r\n\r\nhello", status: 200},
		{name: "spaces around a value", data: "HTTP/1.1 200 OK\r\nContent-Length: \t 5 \t\r\n\r\nhello", status: 200},
		{name: "same length twice", data: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", status: 200},
		{name: "two lengths", data: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", bad: true},
		{name: "signed length", data: "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", bad: true},
		{name: "endless length", data: "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", bad: true},
		{name: "chunked", data: "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n", status: 200},
		{name: "chunked with trailers", data: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", status: 200},
		{name: "chunked and a length", data: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", status: 200},
		{name: "a chunk longer than said", data: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", bad: true},
		{name: "no chunk size", data: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", bad: true},
		{name: "chunk size not hexadecimal", data: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5x\r\nhello\r\n", bad: true},
		{name: "another coding", data: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", bad: true},
		{name: "chunked twice", data: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", bad: true},
		{name: "until the end", data: "HTTP/1.1 200 OK\r\n\r\nhello", status: 200, open: true, closes: true},
		{name: "interim", data: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", status: 200},
		{name: "too many interim", data: strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 20), bad: true},
		{name: "switching protocols", data: "HTTP/1.1 101 Switching\r\n\r\n", bad: true},
		{name: "head", data: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", head: true, status: 200},
		{name: "no content", data: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", status: 204},
		{name: "not modified", data: "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", status: 304},
		{name: "close", data: "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n", status: 200, closes: true},
		{name: "1.0", data: "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200, closes: true},
		{name: "1.0 keeps", data: "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", status: 200},
		{name: "1.0 chunked", data: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", bad: true},
		{name: "extra", data: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP", status: 200, extra: 4},
		{name: "unfinished", data: "HTTP/1.1 200 OK\r\nContent-Le", status: 200, open: true},
		{name: "folded", data: "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 1\r\n\r\na", status: 200},
		{name: "folded framing", data: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n 0\r\n\r\na", bad: true},
		{name: "folded first", data: "HTTP/1.1 200 OK\r\n X: a\r\n\r\n", bad: true},
		{name: "no colon", data: "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", bad: true},
		{name: "space before the colon", data: "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na", bad: true},
		{name: "another protocol", data: "SSH-2.0-OpenSSH_9.2\r\n", bad: true},
		{name: "HTTP/2", data: "HTTP/2.0 200 OK\r\n\r\n", bad: true},
		{name: "status not a number", data: "HTTP/1.1 2x0 OK\r\n\r\n", bad: true},
		{name: "status too long", data: "HTTP/1.1 2000 OK\r\n\r\n", bad: true},
		{name: "blank first line", data: "\r\nHTTP/1.1 200 OK\r\n\r\n", bad: true},
		{name: "endless line", data: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", maxLine+1), bad: true},
		{name: "endless head", data: "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("a", 1000)+"\r\n", 300), bad: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 7, 64, 1 << 20} {
				r, used, ok := readAll(c.data, size, c.head)
				if ok == c.bad {
					t.Fatalf("in pieces of %d: accepted is %t", size, ok)
				}
				if c.bad {
					continue
				}
				if r.status != c.status || (r.state == responseDone) == c.open {
					t.Errorf("in pieces of %d: status %d, state %d", size, r.status, r.state)
				}
				if c.open {
					continue
				}
				// What follows is found in the piece that ends the response.
				if got := len(c.data) - used; got < c.extra || size > len(c.data) && got != c.extra {
					t.Errorf("in pieces of %d: %d bytes follow, not %d", size, got, c.extra)
				}
				if r.reusable() == c.closes {
					t.Errorf("in pieces of %d: reusable is %t", size, r.reusable())
				}
			}
		})
	}
}

func TestResponseUntilTheEndIsCompleteThen(t *testing.T) {
	r, _, ok := readAll("HTTP/1.1 200 OK\r\n\r\nhello", 4, false)
	if !ok || r.state == responseDone || !r.end() || r.reusable() {
		t.Errorf("ok %t, state %d", ok, r.state)
	}
	r, _, _ = readAll("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 4, false)
	if r.end() || !r.started() {
		t.Error("a body that is cut short counts as complete")
	}
	r.reset(false)
	if r.end() || r.started() {
		t.Error("nothing counts as a response")
	}
}

// FuzzResponse holds that the size of the pieces makes no difference, and
// that net/http, where it accepts the same bytes, agrees on what they are.
func FuzzResponse(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\n\r\nbody",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\nX: y\n z\n\n",
	} {
		f.Add([]byte(seed), 3, false)
		f.Add([]byte(seed), 1, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, size int, head bool) {
		if size < 1 {
			size = 1
		}
		whole, used, ok := readAll(string(data), len(data)+1, head)
		pieces, usedPieces, okPieces := readAll(string(data), size, head)
		if ok != okPieces {
			t.Fatalf("accepted whole: %t, in pieces of %d: %t", ok, size, okPieces)
		}
		if !ok {
			return
		}
		if whole.status != pieces.status || whole.state != pieces.state || whole.reusable() != pieces.reusable() || used != usedPieces {
			t.Fatalf("whole %+v (%d bytes), in pieces of %d %+v (%d bytes)", whole, used, size, pieces, usedPieces)
		}
		if !whole.end() || whole.interim > 0 {
			return
		}
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		in := bytes.NewReader(data)
		buffered := bufio.NewReader(in)
		theirs, err := http.ReadResponse(buffered, &http.Request{Method: method})
		if err != nil {
			return
		}
		body, err := io.ReadAll(theirs.Body)
		if err != nil {
			return
		}
		if theirs.StatusCode != whole.status {
			t.Errorf("status %d, net/http has %d", whole.status, theirs.StatusCode)
		}
		if rest := buffered.Buffered() + in.Len(); len(data)-used != rest {
			t.Errorf("%d bytes are left, net/http leaves %d (body %q)", len(data)-used, rest, body)
		}
	})
}
