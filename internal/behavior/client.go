package behavior

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/meshbench/meshbench/internal/behavior/origin"
	"github.com/meshbench/meshbench/internal/behavior/wire"
)

// patience is how long an answer is waited for.
const patience = 10 * time.Second

// Answer is what came back for a request.
type Answer struct {
	wire.Message
	Interim []wire.Message // answers of 1xx that came before
	Status  int            // 0: none came
	Err     error          // how it ended, where not well
	Elapsed time.Duration
}

// String tells it in a few words, for the evidence.
func (a Answer) String() string {
	if a.Status == 0 {
		return "no answer (" + reason(a.Err) + ")"
	}
	text := fmt.Sprint(a.Status)
	if body := strings.TrimSpace(string(a.Body)); body != "" {
		if len(body) > 60 {
			body = body[:60] + "..."
		}
		text += fmt.Sprintf(" %q", body)
	}
	if a.Err != nil {
		text += ", cut off (" + reason(a.Err) + ")"
	}
	return text
}

// reason is an error without the addresses that are different each time.
func reason(err error) string {
	var n net.Error
	switch {
	case err == nil:
		return "none"
	case errors.Is(err, io.EOF):
		return "connection closed"
	case errors.Is(err, wire.ErrCut):
		return "connection closed too early"
	case errors.As(err, &n) && n.Timeout():
		return "nothing came in time"
	}
	text := err.Error()
	for _, known := range []string{"connection reset by peer", "connection refused", "broken pipe"} {
		if strings.Contains(text, known) {
			return known
		}
	}
	return text
}

// Conn is a connection to a proxy, or to the application where there is none.
type Conn struct {
	net.Conn
	r *bufio.Reader
}

// dial opens a connection; it ends with ctx at the latest.
func dial(ctx context.Context, address string, config *tls.Config) (*Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	if config != nil {
		secured := tls.Client(c, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, err
		}
		c = secured
	}
	return &Conn{c, bufio.NewReaderSize(c, 16<<10)}, nil
}

// head reads the first line and the fields of the next answer, whatever it is.
func (c *Conn) head() (wire.Message, error) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	return wire.ReadHead(c.r)
}

// bytes reads n bytes, or as many as come.
func (c *Conn) bytes(n int) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	out := make([]byte, n)
	got, err := io.ReadFull(c.r, out)
	return string(out[:got]), err
}

// Answer reads the next answer, to a request with the given method.
func (c *Conn) Answer(method string) Answer {
	begin := time.Now()
	var a Answer
	for {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		m, err := wire.ReadHead(c.r)
		a.Message, a.Elapsed = m, time.Since(begin)
		if err != nil {
			a.Err = err
			return a
		}
		if s := m.Status(); s/100 == 1 && s != 101 {
			a.Interim = append(a.Interim, m)
			continue
		}
		break
	}
	a.Status = a.Message.Status()
	if a.Status != 101 {
		a.Err = a.ReadAnswerBody(c.r, method)
	}
	a.Elapsed = time.Since(begin)
	return a
}

// Do sends a request as it is and reads its answer. An error of writing is
// kept only where no answer came: who refuses early need not read all.
func (c *Conn) Do(raw string) Answer {
	begin := time.Now()
	_, failed := io.WriteString(c, raw)
	method, _, _ := strings.Cut(raw, " ")
	a := c.Answer(method)
	if a.Status == 0 && failed != nil {
		a.Err = failed
	}
	a.Elapsed = time.Since(begin)
	return a
}

// Request is one to be written down.
type Request struct {
	Method, Target string // "GET", "/" where empty
	Version        string // "HTTP/1.1" where empty
	Host           string // empty: that of the entry; "-": no such field
	Fields         []wire.Field
	Body           string // framed by its length, unless Chunks are given
	Chunks         []string
	Trailers       []wire.Field
	Key            string // of the probe, for the field X-Probe; empty: no such field
}

// text is the request on the wire.
func (r Request) text(host string) string {
	or := func(s, other string) string {
		if s == "" {
			return other
		}
		return s
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\r\n", or(r.Method, "GET"), or(r.Target, "/"), or(r.Version, "HTTP/1.1"))
	if r.Host != "-" {
		fmt.Fprintf(&b, "Host: %s\r\n", or(r.Host, host))
	}
	if r.Key != "" {
		fmt.Fprintf(&b, "%s: %s\r\n", origin.KeyField, r.Key)
	}
	for _, f := range r.Fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	switch {
	case r.Chunks != nil:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		for _, c := range r.Chunks {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(c), c)
		}
		b.WriteString("0\r\n")
		for _, f := range r.Trailers {
			fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
		}
		b.WriteString("\r\n")
	case r.Body != "":
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(r.Body), r.Body)
	default:
		b.WriteString("\r\n")
	}
	return b.String()
}
