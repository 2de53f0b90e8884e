// Package wire reads HTTP/1.1 messages as they are on the wire and keeps what
// a library would tidy up: the order and case of fields, their repetition, the
// framing of the body, trailers, what is wrong. The form of messages is RFC
// 9112's; nothing is refused that can be read at all.
package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// MaxHead is how many bytes of start line and fields are read at most.
const MaxHead = 1 << 20

// Field is a header or trailer field as it was written.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"` // without white space around it
}

// Framing is how the end of a body was told.
type Framing string

// The framings (RFC 9112, section 6).
const (
	NoBody     Framing = "none"
	ByLength   Framing = "length"
	ByChunks   Framing = "chunked"
	UntilClose Framing = "close"
)

// Message is a request or an answer.
type Message struct {
	Start    string  `json:"start"` // its first line
	Fields   []Field `json:"fields"`
	Framing  Framing `json:"framing,omitempty"`
	Body     []byte  `json:"body,omitempty"`
	Trailers []Field `json:"trailers,omitempty"`
}

// ErrCut is a message that ended before its end.
var ErrCut = errors.New("the message was cut off")

// Values returns the values of all fields of a name, in order; case does not
// count.
func Values(fields []Field, name string) []string {
	var out []string
	for _, f := range fields {
		if strings.EqualFold(f.Name, name) {
			out = append(out, f.Value)
		}
	}
	return out
}

// Get returns the first value of a field; empty where there is none.
func (m Message) Get(name string) string {
	if v := Values(m.Fields, name); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Has tells whether a field is there.
func (m Message) Has(name string) bool { return len(Values(m.Fields, name)) > 0 }

// Remove takes all fields of a name away.
func (m *Message) Remove(name string) {
	m.Fields = slices.DeleteFunc(m.Fields, func(f Field) bool { return strings.EqualFold(f.Name, name) })
}

// Add appends a field.
func (m *Message) Add(name, value string) { m.Fields = append(m.Fields, Field{name, value}) }

// Method is the first word of a request's first line.
func (m Message) Method() string {
	method, _, _ := strings.Cut(m.Start, " ")
	return method
}

// Target is the second word of a request's first line.
func (m Message) Target() string {
	_, rest, _ := strings.Cut(m.Start, " ")
	target, _, _ := strings.Cut(rest, " ")
	return target
}

// Status is the code of an answer; 0 where the first line has none.
func (m Message) Status() int {
	words := strings.SplitN(m.Start, " ", 3)
	if len(words) < 2 {
		return 0
	}
	n, err := strconv.Atoi(words[1])
	if err != nil {
		return 0
	}
	return n
}

// ReadHead reads the first line and the fields. The error is io.EOF where the
// connection ended before the first byte.
func ReadHead(r *bufio.Reader) (Message, error) {
	var m Message
	left := MaxHead
	start, err := readLine(r, &left)
	if err != nil {
		return m, err
	}
	if start == "" { // RFC 9112, section 2.2: an empty line before a request is no request
		if start, err = readLine(r, &left); err != nil {
			return m, err
		}
	}
	m.Start = start
	m.Fields, err = readFields(r, &left)
	if errors.Is(err, io.EOF) {
		err = ErrCut
	}
	return m, err
}

func readFields(r *bufio.Reader, left *int) ([]Field, error) {
	var out []Field
	for {
		line, err := readLine(r, left)
		if err != nil {
			return out, err
		}
		if line == "" {
			return out, nil
		}
		name, value, _ := strings.Cut(line, ":")
		out = append(out, Field{name, strings.Trim(value, " \t")})
	}
}

func readLine(r *bufio.Reader, left *int) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		*left -= len(part)
		if *left < 0 {
			return "", fmt.Errorf("the head is longer than %d bytes", MaxHead)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			if errors.Is(err, io.EOF) && len(line) > 0 {
				return "", ErrCut
			}
			return "", err
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), nil
	}
}

// chunked tells whether the last transfer coding is chunked.
func (m Message) chunked() bool {
	v := Values(m.Fields, "Transfer-Encoding")
	return len(v) > 0 && strings.HasSuffix(strings.ToLower(v[len(v)-1]), "chunked")
}

// ReadRequestBody reads what follows a request's head: chunks win over a
// length (RFC 9112, section 6.3). ErrCut says that it ended too early; what
// was read until then is kept.
func (m *Message) ReadRequestBody(r *bufio.Reader) error {
	switch length := m.Get("Content-Length"); {
	case m.chunked():
		return m.readChunks(r)
	case length != "":
		return m.readLength(r, length)
	}
	m.Framing = NoBody
	return nil
}

// ReadAnswerBody reads what follows an answer's head, of a request with the
// given method.
func (m *Message) ReadAnswerBody(r *bufio.Reader, method string) error {
	status := m.Status()
	length := m.Get("Content-Length")
	switch {
	case method == "HEAD" || status == 204 || status == 304 || status/100 == 1:
		m.Framing = NoBody
		return nil
	case m.chunked():
		return m.readChunks(r)
	case length != "":
		return m.readLength(r, length)
	}
	m.Framing = UntilClose
	body, err := io.ReadAll(r)
	m.Body = append(m.Body, body...)
	return err
}

func (m *Message) readLength(r *bufio.Reader, length string) error {
	m.Framing = ByLength
	n, err := strconv.ParseUint(length, 10, 31)
	if err != nil {
		return fmt.Errorf("Content-Length %q is no length", length)
	}
	return m.readN(r, int(n))
}

func (m *Message) readN(r *bufio.Reader, n int) error {
	part, err := io.ReadAll(io.LimitReader(r, int64(n)))
	m.Body = append(m.Body, part...)
	if err == nil && len(part) < n {
		err = ErrCut
	}
	return err
}

func (m *Message) readChunks(r *bufio.Reader) error {
	m.Framing = ByChunks
	left := MaxHead
	for {
		line, err := readLine(r, &left)
		if err != nil {
			return cut(err)
		}
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 31)
		if err != nil {
			return fmt.Errorf("%q is no length of a chunk", line)
		}
		if n == 0 {
			break
		}
		if err := m.readN(r, int(n)); err != nil {
			return err
		}
		if end, err := readLine(r, &left); err != nil {
			return cut(err)
		} else if end != "" {
			return fmt.Errorf("a chunk is longer than its length")
		}
	}
	trailers, err := readFields(r, &left)
	m.Trailers = trailers
	return cut(err)
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrCut
	}
	return err
}

// Bytes writes the message down in its own framing.
func (m Message) Bytes() []byte {
	var b strings.Builder
	b.WriteString(m.Start + "\r\n")
	for _, f := range m.Fields {
		b.WriteString(f.Name + ": " + f.Value + "\r\n")
	}
	b.WriteString("\r\n")
	if m.Framing != ByChunks {
		b.Write(m.Body)
		return []byte(b.String())
	}
	if len(m.Body) > 0 {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(m.Body), m.Body)
	}
	b.WriteString("0\r\n")
	for _, f := range m.Trailers {
		b.WriteString(f.Name + ": " + f.Value + "\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}
