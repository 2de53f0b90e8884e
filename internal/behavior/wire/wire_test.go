package wire

import (
	"bufio"
	"errors"
	"slices"
	"strings"
	"testing"
)

func read(text, method string) (Message, error) {
	r := bufio.NewReader(strings.NewReader(text))
	m, err := ReadHead(r)
	if err != nil {
		return m, err
	}
	if strings.HasPrefix(m.Start, "HTTP/") {
		return m, m.ReadAnswerBody(r, method)
	}
	return m, m.ReadRequestBody(r)
}

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name, text, method string
		body               string
		framing            Framing
		trailers           []Field
		err                error
	}{
		{"no body", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "", "", NoBody, nil, nil},
		{"length", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcdef", "", "abc", ByLength, nil, nil},
		{"length, cut", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", "", "ab", ByLength, nil, ErrCut},
		{"chunks win", "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nX-T: 1\r\n\r\n", "", "abc", ByChunks, []Field{{"X-T", "1"}}, nil},
		{"chunks, cut", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "", "ab", ByChunks, nil, ErrCut},
		{"head, cut", "GET / HTTP/1.1\r\nHost", "", "", "", nil, ErrCut},
		{"answer until close", "HTTP/1.1 200 OK\r\n\r\nall", "GET", "all", UntilClose, nil, nil},
		{"answer to HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", "", NoBody, nil, nil},
		{"304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET", "", NoBody, nil, nil},
	} {
		m, err := read(tt.text, tt.method)
		if string(m.Body) != tt.body || m.Framing != tt.framing || !slices.Equal(m.Trailers, tt.trailers) || !errors.Is(err, tt.err) {
			t.Errorf("%s: body %q, framing %q, trailers %v, error %v", tt.name, m.Body, m.Framing, m.Trailers, err)
		}
	}
}

func TestFieldsStayAsTheyWere(t *testing.T) {
	m, err := read("GET /x HTTP/1.1\r\nhOsT: a\r\nX-B:\r\nX-A: 1\r\nX-a: 2 \r\n\r\n", "")
	if err != nil {
		t.Fatal(err)
	}
	if want := []Field{{"hOsT", "a"}, {"X-B", ""}, {"X-A", "1"}, {"X-a", "2"}}; !slices.Equal(m.Fields, want) {
		t.Errorf("fields %v", m.Fields)
	}
	if m.Method() != "GET" || m.Target() != "/x" || !slices.Equal(Values(m.Fields, "x-a"), []string{"1", "2"}) {
		t.Errorf("method %q, target %q, values %v", m.Method(), m.Target(), Values(m.Fields, "x-a"))
	}
}

// FuzzRead reads anything without a panic, and what it wrote down again it
// reads as the same.
func FuzzRead(f *testing.F) {
	f.Add("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX: y\r\n\r\n")
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")
	f.Add("GET / HTTP/1.1\r\n folded\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := read(text, "GET")
		if err != nil || m.Start == "" || strings.HasPrefix(m.Start, "HTTP/") || strings.Contains(text, "\r") && strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\r") {
			return
		}
		again, err := read(string(m.Bytes()), "GET")
		if err != nil || string(again.Body) != string(m.Body) || len(again.Fields) != len(m.Fields) {
			t.Errorf("%q became %q: %+v, %v", text, m.Bytes(), again, err)
		}
	})
}
