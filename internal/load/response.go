package load

import "bytes"

// The limits of a response's head (all lines before its body, or of its
// trailers), of one line and of interim responses: what popular servers and
// clients allow, several times over.
const (
	maxLine    = 16 << 10
	maxHead    = 256 << 10
	maxInterim = 16
)

// The states of a response.
const (
	readStatus = iota
	readHeader
	readLength // a body of known length
	readClose  // a body that ends with the connection
	readChunkSize
	readChunk
	readChunkEnd
	readTrailer
	responseDone
)

// response reads one HTTP/1.x response (RFC 9112) as its bytes come in, in
// pieces of any size, and keeps none of them but an unfinished line.
// reset begins the next response on the same memory.
type response struct {
	state  uint8
	head   bool // the answer of a HEAD request: it has no body
	status int

	http10, closes, keeps, chunked bool
	named, framing                 bool  // a header line has come; it was one that a folded line must not change
	length                         int64 // -1: not given
	left                           int64 // of the body or the chunk
	headBytes                      int
	interim                        int
	line                           []byte // the unfinished line
}

func (r *response) reset(head bool) {
	*r = response{head: head, length: -1, line: r.line[:0]}
}

// read takes bytes until the response is complete, and returns how many
// belong to it. It reports false where they are not HTTP.
func (r *response) read(b []byte) (int, bool) {
	all := len(b)
	for len(b) > 0 && r.state != responseDone {
		switch r.state {
		case readLength, readChunk:
			n := int64(len(b))
			if n > r.left {
				n = r.left
			}
			b = b[n:]
			if r.left -= n; r.left == 0 {
				if r.state == readLength {
					r.state = responseDone
				} else {
					r.state = readChunkEnd
				}
			}
		case readClose:
			b = nil
		default:
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				if r.headBytes += len(b); len(r.line)+len(b) > maxLine || r.headBytes > maxHead {
					return all, false
				}
				r.line = append(r.line, b...)
				return all, true
			}
			r.headBytes += i + 1
			line := b[:i]
			if len(r.line) > 0 {
				r.line = append(r.line, line...)
				line = r.line
			}
			if len(line) > maxLine || r.headBytes > maxHead {
				return all, false
			}
			b = b[i+1:]
			if n := len(line); n > 0 && line[n-1] == '\r' {
				line = line[:n-1]
			}
			if !r.take(line) {
				return all, false
			}
			r.line = r.line[:0]
		}
	}
	return all - len(b), true
}

// end tells whether the response is complete now that the connection has
// ended.
func (r *response) end() bool {
	if r.state == readClose {
		r.state = responseDone
	}
	return r.state == responseDone
}

// started tells whether any byte of the response has come.
func (r *response) started() bool { return r.headBytes > 0 || r.state != readStatus }

// reusable tells whether another request may follow on the connection.
func (r *response) reusable() bool {
	return r.state == responseDone && !r.closes && (!r.http10 || r.keeps)
}

func (r *response) take(line []byte) bool {
	switch r.state {
	case readStatus:
		return r.takeStatus(line)
	case readHeader:
		if len(line) == 0 {
			return r.takeBlank()
		}
		return r.takeHeader(line)
	case readChunkSize:
		return r.takeChunkSize(line)
	case readChunkEnd:
		// Heads are limited as a whole, chunk lines one by one: a body may
		// have any number of chunks.
		r.state, r.headBytes = readChunkSize, 0
		return len(line) == 0
	case readTrailer:
		if len(line) == 0 {
			r.state = responseDone
			return true
		}
		return bytes.IndexByte(line, ':') > 0
	}
	return false
}

// takeStatus reads "HTTP/1.1 200 OK"; the reason may be missing.
func (r *response) takeStatus(line []byte) bool {
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[8] != ' ' || (len(line) > 12 && line[12] != ' ') {
		return false
	}
	switch line[7] {
	case '0':
		r.http10 = true
	case '1':
		r.http10 = false
	default:
		return false
	}
	status := 0
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return false
		}
		status = status*10 + int(c-'0')
	}
	r.status = status
	r.state = readHeader
	return status >= 100 && status != 101 // nobody asked to switch protocols
}

// takeHeader reads one header line; only framing and connection matter.
func (r *response) takeHeader(line []byte) bool {
	if line[0] == ' ' || line[0] == '\t' {
		// A folded line continues the header before it (RFC 9112, 5.2); it is
		// not allowed to change how the message is framed.
		return r.named && !r.framing
	}
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return false
	}
	name := line[:colon]
	for _, c := range name {
		if !tokenByte(c) {
			return false
		}
	}
	r.named, r.framing = true, false
	switch len(name) {
	case len("connection"):
		if equalFold(name, "connection") {
			r.takeConnection(line[colon+1:])
		}
	case len("content-length"):
		if equalFold(name, "content-length") {
			r.framing = true
			return r.takeLength(trim(line[colon+1:]))
		}
	case len("transfer-encoding"):
		if equalFold(name, "transfer-encoding") {
			r.framing = true
			// chunked is the only coding that was not asked for and may come.
			ok := !r.chunked && equalFold(trim(line[colon+1:]), "chunked")
			r.chunked = true
			return ok
		}
	}
	return true
}

func (r *response) takeConnection(value []byte) {
	for len(value) > 0 {
		word := value
		if i := bytes.IndexByte(value, ','); i >= 0 {
			word, value = value[:i], value[i+1:]
		} else {
			value = nil
		}
		word = trim(word)
		r.closes = r.closes || equalFold(word, "close")
		r.keeps = r.keeps || equalFold(word, "keep-alive")
	}
}

func (r *response) takeLength(value []byte) bool {
	if len(value) == 0 || len(value) > 18 {
		return false
	}
	var n int64
	for _, c := range value {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int64(c-'0')
	}
	if r.length >= 0 && r.length != n {
		return false // two lengths: nobody knows where the body ends
	}
	r.length = n
	return true
}

// takeBlank ends the head and decides how long the body is (RFC 9112, 6.3).
func (r *response) takeBlank() bool {
	switch {
	case r.status < 200:
		interim := r.interim + 1
		r.reset(r.head)
		r.interim = interim
		return interim <= maxInterim
	case r.head || r.status == 204 || r.status == 304:
		r.state = responseDone
	case r.chunked && !r.http10:
		r.state, r.headBytes = readChunkSize, 0
	case r.chunked: // not a thing of HTTP/1.0: where it ends is not known
		return false
	case r.length == 0:
		r.state = responseDone
	case r.length > 0:
		r.state, r.left = readLength, r.length
	default:
		r.state, r.closes = readClose, true
	}
	return true
}

// takeChunkSize reads "1a2b" or "1a2b;extension".
func (r *response) takeChunkSize(line []byte) bool {
	if i := bytes.IndexByte(line, ';'); i >= 0 {
		line = line[:i]
	}
	line = trim(line)
	if len(line) == 0 || len(line) > 15 {
		return false
	}
	var n int64
	for _, c := range line {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | int64(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | int64(c-'a'+10)
		case c >= 'A' && c <= 'F':
			n = n<<4 | int64(c-'A'+10)
		default:
			return false
		}
	}
	if r.headBytes = 0; n == 0 {
		r.state = readTrailer
	} else {
		r.state, r.left = readChunk, n
	}
	return true
}

// equalFold compares ASCII without regard to case; lower is in lower case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range len(lower) {
		c := b[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// trim cuts spaces and tabs.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
