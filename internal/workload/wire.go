package workload

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
)

// wire is a connection that keeps the head of the request that is being
// served as its bytes came: net/http tells neither the order of the headers
// nor the case of their names. A client that sends its next request before it
// has the answer (pipelining) gets that one's head lost.
type wire struct {
	*net.TCPConn

	mu    sync.Mutex // net/http reads ahead while a handler runs
	head  []byte
	whole bool // the head has ended: what follows is a body
	plain bool // and nothing in it looks like a request for something
}

// maxHead is more than net/http lets in.
const maxHead = http.DefaultMaxHeaderBytes + 8192

// keptHead is the capacity that a connection keeps between requests.
const keptHead = 16 << 10

var headEnd = []byte("\r\n\r\n")

// Read reads, and keeps what belongs to a head.
func (c *wire) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if n > 0 {
		c.keep(p[:n])
	}
	return n, err
}

func (c *wire) keep(p []byte) {
	c.mu.Lock()
	if !c.whole {
		from := max(0, len(c.head)-len(headEnd)+1)
		c.head = append(c.head, p[:min(len(p), maxHead-len(c.head))]...)
		if end := bytes.Index(c.head[from:], headEnd); end >= 0 {
			c.head, c.whole = c.head[:from+end+len(headEnd)], true
			c.plain = !looksSpecial(c.head)
		}
		c.whole = c.whole || len(c.head) == maxHead
	}
	c.mu.Unlock()
}

// marks are in every head that has a header of headerPrefix or Upgrade, unless
// somebody writes letters of the middle of a word in another case than their
// neighbours: no client and no proxy does.
var marks = [][]byte{[]byte("ench-"), []byte("ENCH-"), []byte("pgrade"), []byte("PGRADE")}

func looksSpecial(head []byte) bool {
	for _, m := range marks {
		if bytes.Contains(head, m) {
			return true
		}
	}
	return false
}

// usual tells whether the head that is being served is known and asks for
// nothing. It is called by the handler: what is written after this head was
// read waits until the handler writes.
func (c *wire) usual() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.whole && c.plain
}

// Write writes: with the answer the request's head is over.
func (c *wire) Write(p []byte) (int, error) {
	c.mu.Lock()
	if cap(c.head) > keptHead {
		c.head = nil
	}
	c.head, c.whole, c.plain = c.head[:0], false, false
	c.mu.Unlock()
	return c.TCPConn.Write(p)
}

// headers returns the headers of a request as they came, names in their own
// case; ok is false where they are not known.
func (c *wire) headers(r *http.Request) (headers [][2]string, ok bool) {
	c.mu.Lock()
	head, whole := string(c.head), c.whole
	c.mu.Unlock()
	lines := strings.Split(strings.TrimLeft(head, "\r\n"), "\r\n")
	if !whole || !strings.HasPrefix(lines[0], r.Method+" "+r.RequestURI+" ") {
		return nil, false
	}
	headers = [][2]string{}
	for _, line := range lines[1:] {
		if line == "" {
			return headers, true
		}
		if last := len(headers) - 1; last >= 0 && (line[0] == ' ' || line[0] == '\t') {
			headers[last][1] += " " + strings.Trim(line, " \t") // folded (RFC 9112, 5.2)
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		headers = append(headers, [2]string{name, strings.Trim(value, " \t")})
	}
	return nil, false
}

// wireListener accepts wires.
type wireListener struct{ *net.TCPListener }

func (l wireListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return &wire{TCPConn: c}, nil
}

// wireKey is the key of a request's wire in its context.
type wireKey struct{}

func withWire(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, wireKey{}, c)
}
