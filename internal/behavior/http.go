package behavior

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/meshbench/meshbench/internal/behavior/origin"
	"github.com/meshbench/meshbench/internal/behavior/wire"
)

// ordinary are the fields of an exchange that are there anyway.
var ordinary = []string{"Host", origin.KeyField, "Content-Type", "Content-Length", "Date", "Connection", "Transfer-Encoding", "Via"}

// added are the names of fields that are not ordinary, in lower case.
func added(fields []wire.Field) []string {
	var out []string
	for _, f := range fields {
		if !slices.ContainsFunc(ordinary, func(o string) bool { return strings.EqualFold(o, f.Name) }) {
			out = append(out, strings.ToLower(f.Name))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// sameTarget is a probe of a request target that must not be changed.
func sameTarget(name, question, target string) Probe {
	return exchange(name, question, "it arrives as it was sent", rfc(9110, "7.7"), "GET "+target,
		Request{Target: target}, nil,
		arrived(func(m wire.Message, _ origin.Record) (bool, string) {
			return m.Target() == target, "arrived as " + m.Target()
		}))
}

// sameField is a probe of a field of a request that must arrive with its value.
func sameField(name, question, reference, sent, fieldName, value string) Probe {
	return exchange(name, question, "it arrives with its value", reference, sent,
		Request{Fields: field(fieldName, value)}, nil,
		arrived(func(m wire.Message, _ origin.Record) (bool, string) {
			v := wire.Values(m.Fields, fieldName)
			if len(v) == 1 && v[0] == value {
				return true, fmt.Sprintf("arrived, %d bytes", len(value))
			}
			return false, "arrived with " + quoted(v)
		}))
}

// sameMethod is a probe of a method that must arrive.
func sameMethod(name, question, method, target, reference string) Probe {
	return exchange(name, question, "it arrives, and its answer comes back", reference, method+" "+target,
		Request{Method: method, Target: target}, nil,
		arrived(func(m wire.Message, _ origin.Record) (bool, string) {
			return m.Method() == method && m.Target() == target, "arrived as " + m.Method() + " " + m.Target()
		}))
}

// answersWith is a probe of an answer that must come back in a certain way.
func answersWith(name, question, expected, reference, sent, raw string, then origin.Then, look func(a Answer) (bool, string)) Probe {
	answer := rawAnswer(raw)
	answer.Then = then
	return exchange(name, question, expected, reference, sent, Request{}, []origin.Answer{answer}, answered(look))
}

func httpProbes() []Probe {
	large := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	sum := sha256.Sum256([]byte(large))
	return []Probe{
		{
			Name: "http.host", Question: "Does the application get the Host that was sent?",
			Expected: "the same", Reference: rfc(9110, "7.2"), Run: sameHost,
		},
		exchange("http.trailers_request", "Do the trailers of a request arrive?",
			"they arrive", rfc(9110, "6.5"), "chunked POST with the trailer X-Check: 42",
			Request{Method: "POST", Fields: field("Trailer", "X-Check"), Chunks: []string{"abc"}, Trailers: field("X-Check", "42")}, nil,
			arrived(func(m wire.Message, _ origin.Record) (bool, string) {
				v := wire.Values(m.Trailers, "X-Check")
				return slices.Equal(v, []string{"42"}), "trailers that arrived: " + quoted(v)
			})),
		exchange("http.trailers_answer", "Do the trailers of an answer come back?",
			"they come back", rfc(9110, "6.5"), "GET with TE: trailers, answered in chunks with the trailer X-Check: 42",
			Request{Fields: []wire.Field{{Name: "TE", Value: "trailers"}, {Name: "Connection", Value: "TE"}}},
			[]origin.Answer{rawAnswer("HTTP/1.1 200 OK\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Check: 42\r\n\r\n")},
			answered(func(a Answer) (bool, string) {
				v := wire.Values(a.Trailers, "X-Check")
				return slices.Equal(v, []string{"42"}), "trailers that came back: " + quoted(v) + "; answer " + a.String()
			})),
		sameField("http.header_8k", "Does a field of 8 KiB arrive?", rfc(9110, "5.4"), "a field of 8,192 bytes", "X-Large", strings.Repeat("x", 8<<10)),
		sameField("http.header_50k", "Does a field of 50 KiB arrive?", rfc(9110, "5.4"), "a field of 51,200 bytes", "X-Large", strings.Repeat("x", 50<<10)),
		exchange("http.header_many", "Do 150 fields arrive?", "all arrive", rfc(9110, "5.4"), "150 fields",
			Request{Fields: manyFields(150)}, nil,
			func(a Answer, records []origin.Record) (bool, string) {
				n := 0
				for _, r := range records {
					for _, f := range r.Message.Fields {
						if strings.HasPrefix(strings.ToLower(f.Name), "x-many-") {
							n++
						}
					}
				}
				return n == 150 && a.Status == 200, fmt.Sprintf("%d arrived; answer %s", n, a)
			}),
		expectContinue(),
		upgrade(),
		exchange("http.http10", "Is a request of HTTP/1.0 answered?",
			"it is answered, with a whole body", rfc(9110, "2.5"), "GET / HTTP/1.0",
			Request{Version: "HTTP/1.0"}, nil,
			answered(func(a Answer) (bool, string) {
				return a.Status == 200 && a.Err == nil && strings.HasPrefix(string(a.Body), Echo), "answer " + a.Start + ", body " + quoted([]string{string(a.Body)})
			})),
		exchange("http.chunked_upload", "Does a body in chunks arrive whole?",
			"it arrives whole", rfc(9112, "7.1"), "POST with chunks of 3, 5 and 2 bytes",
			Request{Method: "POST", Chunks: []string{"abc", "defgh", "ij"}}, nil,
			arrived(func(m wire.Message, r origin.Record) (bool, string) {
				return string(m.Body) == "abcdefghij", fmt.Sprintf("%q arrived, framed by %s", m.Body, m.Framing)
			})),
		exchange("http.large_upload", "Does a body of 1 MiB arrive unchanged?",
			"it arrives unchanged", rfc(9110, "7.7"), "POST with 1,048,576 bytes",
			Request{Method: "POST", Body: large}, nil,
			arrived(func(_ wire.Message, r origin.Record) (bool, string) {
				return r.BodySHA256 == hex.EncodeToString(sum[:]), fmt.Sprintf("%d bytes arrived, SHA-256 %s...", r.BodyBytes, r.BodySHA256[:min(8, len(r.BodySHA256))])
			})),
		absoluteForm(),
		exchange("http.header_case", "Do names of fields keep their case?",
			"they arrive as they were sent", "RFC 9110, section 5.1, makes case meaningless; unchanged is what no proxy would do: https://www.rfc-editor.org/rfc/rfc9110#section-5.1",
			"the field X-CamelCASE", Request{Fields: field("X-CamelCASE", "1")}, nil,
			arrived(func(m wire.Message, _ origin.Record) (bool, string) {
				for _, f := range m.Fields {
					if strings.EqualFold(f.Name, "X-CamelCASE") {
						return f.Name == "X-CamelCASE", "arrived as " + f.Name
					}
				}
				return false, "it did not arrive"
			})),
		exchange("http.added_request", "Does a request arrive without fields that nobody sent?",
			"none is added, except for Via", rfc(9110, "7.6"), "GET with Host alone", Request{}, nil,
			arrived(func(m wire.Message, _ origin.Record) (bool, string) {
				extra := added(m.Fields)
				return len(extra) == 0, "added: " + list(extra)
			})),
		exchange("http.added_answer", "Does an answer come back without fields that the application did not write?",
			"none is added, except for Via and Date", rfc(9110, "7.6"), "GET", Request{}, nil,
			answered(func(a Answer) (bool, string) {
				extra := added(a.Fields)
				return len(extra) == 0 && a.Status == 200, "added: " + list(extra)
			})),
		exchange("http.duplicate_fields", "Do two fields of one name arrive with both values, in order?",
			"both values arrive, in order", rfc(9110, "5.3"), "X-Dup: one, X-Dup: two",
			Request{Fields: []wire.Field{{Name: "X-Dup", Value: "one"}, {Name: "X-Dup", Value: "two"}}}, nil,
			arrived(func(m wire.Message, _ origin.Record) (bool, string) {
				v := wire.Values(m.Fields, "X-Dup")
				whole := strings.ReplaceAll(strings.Join(v, ","), " ", "")
				return whole == "one,two", "arrived as " + quoted(v)
			})),
		answersWith("http.set_cookie", "Do two Set-Cookie fields stay apart?",
			"they come back as two fields", rfc(6265, "3"), "an answer with two Set-Cookie fields",
			"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2; Path=/\r\nContent-Length: 0\r\n\r\n", origin.Keep,
			func(a Answer) (bool, string) {
				v := wire.Values(a.Fields, "Set-Cookie")
				return slices.Equal(v, []string{"a=1; Path=/", "b=2; Path=/"}), "came back as " + quoted(v)
			}),
		sameTarget("http.path_double_slash", "Is // in a path left alone?", "/a//b"),
		sameTarget("http.path_dot_segments", "Is /../ in a path left alone?", "/a/x/../b"),
		sameTarget("http.path_encoded_slash", "Is %2F in a path left alone?", "/a%2Fb"),
		sameTarget("http.query", "Is a query with unusual characters left alone?", "/q?a=1&b=%20x&&c;d=/e?f&g=a+b"),
		exchange("http.long_path", "Does a target of 20,000 bytes arrive?", "it arrives", rfc(9110, "4.1"), "GET with a path of 20,000 bytes",
			Request{Target: "/" + strings.Repeat("p", 19999)}, nil,
			arrived(func(m wire.Message, _ origin.Record) (bool, string) {
				return len(m.Target()) == 20000, fmt.Sprintf("%d bytes arrived", len(m.Target()))
			})),
		exchange("http.head", "Is HEAD answered without a body, with the length that GET would have?",
			"no body, Content-Length as the application wrote it", rfc(9110, "9.3.2"), "HEAD /",
			Request{Method: "HEAD"}, []origin.Answer{rawAnswer("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")},
			answered(func(a Answer) (bool, string) {
				return a.Status == 200 && a.Get("Content-Length") == "1234", fmt.Sprintf("answer %s, Content-Length %q", a, a.Get("Content-Length"))
			})),
		sameMethod("http.options_star", "Does OPTIONS * arrive as such?", "OPTIONS", "*", rfc(9112, "3.2.4")),
		sameMethod("http.trace", "Does TRACE arrive?", "TRACE", "/", rfc(9110, "9.3.8")),
		sameMethod("http.unknown_method", "Does a method that nobody knows arrive?", "BREW", "/pot", rfc(9110, "9.1")),
		withProxy(exchange("http.connection_named", "Is a field that Connection names kept from the application?",
			"it is removed", rfc(9110, "7.6.1"), "Connection: X-Hop, X-Hop: secret",
			Request{Fields: []wire.Field{{Name: "Connection", Value: "X-Hop"}, {Name: "X-Hop", Value: "secret"}}}, nil,
			func(a Answer, records []origin.Record) (bool, string) {
				if len(records) != 1 {
					return len(records) == 0 && a.Status == 400, "answer " + a.String() + "; " + seen(records)
				}
				return !records[0].Message.Has("X-Hop"), "X-Hop arrived with " + quoted(wire.Values(records[0].Message.Fields, "X-Hop"))
			})),
		answersWith("http.early_hints", "Does an informational answer (103) come back before the final one?",
			"it comes back", rfc(9110, "15.2"), "an answer of 103 with Link, then 200",
			"HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", origin.Keep,
			func(a Answer) (bool, string) {
				var codes []string
				for _, m := range a.Interim {
					codes = append(codes, fmt.Sprint(m.Status()))
				}
				return slices.Contains(codes, "103") && a.Status == 200, "before the final answer " + a.String() + ": " + list(codes)
			}),
		earlyAnswer(),
		exchange("http.empty_value", "Does a field without a value arrive?", "it arrives, empty", rfc(9110, "5.5"), "X-Empty:",
			Request{Fields: field("X-Empty", "")}, nil,
			arrived(func(m wire.Message, _ origin.Record) (bool, string) {
				v := wire.Values(m.Fields, "X-Empty")
				return slices.Equal(v, []string{""}), "arrived with " + quoted(v)
			})),
		sameField("http.underscore", "Does a field with an underscore in its name arrive?", rfc(9110, "5.6.2"), "x_under_score: 1", "x_under_score", "1"),
		sameField("http.value_bytes", "Does a value with bytes above 127 arrive unchanged?", rfc(9110, "5.5"), "a value in UTF-8", "X-Name", "J\u00fcrgen"),
		exchange("http.get_body", "Does the body of a GET arrive?", "it arrives", rfc(9110, "9.3.1"), "GET with a body of 5 bytes",
			Request{Body: "hello"}, nil,
			arrived(func(m wire.Message, _ origin.Record) (bool, string) {
				return string(m.Body) == "hello", fmt.Sprintf("%q arrived", m.Body)
			})),
		pipelining(),
		answersWith("http.reason_phrase", "Does a reason phrase come back?",
			"the phrase comes back", "RFC 9112, section 4, lets clients ignore it; unchanged is what no proxy would do: https://www.rfc-editor.org/rfc/rfc9112#section-4",
			"HTTP/1.1 200 Splendid", "HTTP/1.1 200 Splendid\r\nContent-Length: 0\r\n\r\n", origin.Keep,
			func(a Answer) (bool, string) { return strings.HasSuffix(a.Start, " Splendid"), a.Start }),
		answersWith("http.unknown_status", "Does a status that nobody knows come back?",
			"it comes back", rfc(9110, "15"), "an answer of 299", "HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n", origin.Keep,
			func(a Answer) (bool, string) { return a.Status == 299, "answer " + a.String() }),
		answersWith("http.until_close", "Does a body that ends with its connection come back whole?",
			"it comes back whole", rfc(9112, "6.3"), "an answer without length, ended by closing", "HTTP/1.1 200 OK\r\n\r\nall of it", origin.Close,
			func(a Answer) (bool, string) {
				return a.Status == 200 && a.Err == nil && string(a.Body) == "all of it", "answer " + a.String()
			}),
		answersWith("http.cut_answer", "Is an answer that was cut off recognisable as such?",
			"the client can tell that it is not whole", rfc(9112, "8"), "5 of 100 announced bytes, then the connection ends",
			"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nparts", origin.Close,
			func(a Answer) (bool, string) { return a.Err != nil || a.Status >= 500, "answer " + a.String() }),
		answersWith("http.not_modified", "Is 304 with a length passed on without waiting for a body?",
			"304 comes back at once", rfc(9110, "15.4.5"), "304 with Content-Length: 10 and no body",
			"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 10\r\n\r\n", origin.Keep,
			func(a Answer) (bool, string) { return a.Status == 304 && a.Err == nil, "answer " + a.String() }),
		sameField("http.accept_encoding", "Is Accept-Encoding left alone?", rfc(9110, "7.7"), "Accept-Encoding: gzip, br", "Accept-Encoding", "gzip, br"),
		sameField("http.user_agent", "Is User-Agent left alone?", rfc(9110, "10.1.5"), "User-Agent: probe/1", "User-Agent", "probe/1"),
		answersWith("http.server_field", "Is the application's Server field left alone?",
			"it comes back as it was written", rfc(9110, "10.2.4"), "an answer with Server: origin/1", "HTTP/1.1 200 OK\r\nServer: origin/1\r\nContent-Length: 0\r\n\r\n", origin.Keep,
			func(a Answer) (bool, string) {
				return a.Get("Server") == "origin/1", "came back as " + quoted(wire.Values(a.Fields, "Server"))
			}),
		sameField("http.trace_context", "Is a traceparent that the client sent left alone?", "W3C Trace Context, section 3.3: https://www.w3.org/TR/trace-context/#a-traceparent-is-received",
			"traceparent", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
		keepAlive(),
	}
}

func list(words []string) string {
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

func manyFields(n int) []wire.Field {
	var out []wire.Field
	for i := range n {
		out = append(out, wire.Field{Name: fmt.Sprintf("X-Many-%d", i), Value: "v"})
	}
	return out
}

func sameHost(ctx context.Context, b *Bed) (Finding, error) {
	a, records, err := b.Ask(ctx, Request{})
	if err != nil {
		return Finding{}, err
	}
	if len(records) != 1 {
		return decide(false, "sent: GET /; seen: %s; answer %s", seen(records), a)
	}
	v := wire.Values(records[0].Message.Fields, "Host")
	what := "the same"
	same := slices.Equal(v, []string{b.host()})
	if !same {
		what = quoted(v)
	}
	return decide(same, "sent: GET / with the Host of the entry; arrived: %s", what)
}

// expectContinue sends the body only when it is told to go on.
func expectContinue() Probe {
	return Probe{
		Name: "http.expect_continue", Question: "Is Expect: 100-continue answered before the body is sent?",
		Expected: "100 comes, and the body arrives", Reference: rfc(9110, "10.1.1"),
		Run: func(ctx context.Context, b *Bed) (Finding, error) {
			c, err := b.Dial(ctx)
			if err != nil {
				return Finding{}, err
			}
			defer c.Close()
			key := b.Key()
			head := Request{Method: "POST", Key: key, Fields: []wire.Field{{Name: "Expect", Value: "100-continue"}, {Name: "Content-Length", Value: "5"}}}.text(b.host())
			if _, err := c.Write([]byte(head)); err != nil {
				return Finding{}, err
			}
			first, err := c.head()
			if err != nil || first.Status() != 100 {
				return decide(false, "sent: POST with Expect: 100-continue, body held back; seen: %s (%s)", orNothing(first.Start), reason(err))
			}
			if _, err := c.Write([]byte("hello")); err != nil {
				return Finding{}, err
			}
			a := c.Answer("POST")
			records, err := b.Records(ctx, key)
			if err != nil {
				return Finding{}, err
			}
			ok := a.Status == 200 && len(records) == 1 && string(records[0].Message.Body) == "hello"
			return decide(ok, "sent: POST with Expect: 100-continue, the body after 100; seen: 100, then %s; %s", a, seen(records))
		},
	}
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// upgrade changes to another protocol, by the handshake of WebSocket.
func upgrade() Probe {
	return Probe{
		Name: "http.websocket", Question: "Does a WebSocket upgrade go through?",
		Expected: "101 comes back, and bytes go both ways", Reference: rfc(6455, "4.1"),
		Run: func(ctx context.Context, b *Bed) (Finding, error) {
			c, err := b.Dial(ctx)
			if err != nil {
				return Finding{}, err
			}
			defer c.Close()
			key := b.Key()
			// The accept value belongs to the key of RFC 6455, section 1.3.
			answer := rawAnswer("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
			answer.Then = origin.Echo
			if err := b.Script(ctx, key, []origin.Answer{answer}); err != nil {
				return Finding{}, err
			}
			a := c.Do(Request{Target: "/chat", Key: key, Fields: []wire.Field{
				{Name: "Connection", Value: "Upgrade"}, {Name: "Upgrade", Value: "websocket"},
				{Name: "Sec-WebSocket-Version", Value: "13"}, {Name: "Sec-WebSocket-Key", Value: "dGhlIHNhbXBsZSBub25jZQ=="},
			}}.text(b.host()))
			if a.Status != 101 {
				return decide(false, "sent: WebSocket handshake; seen: %s", a)
			}
			// A masked text frame "Hello" (RFC 6455, section 5.7).
			frame := "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
			if _, err := c.Write([]byte(frame)); err != nil {
				return Finding{}, err
			}
			back, err := c.bytes(len(frame))
			return decide(back == frame, "sent: WebSocket handshake and a frame; seen: 101, %d of %d bytes of the frame came back (%s)", len(back), len(frame), reason(err))
		},
	}
}

// absoluteForm names a host in the target and another one in Host.
func absoluteForm() Probe {
	return Probe{
		Name: "http.absolute_form", Question: "Is a target in absolute form taken?",
		Expected: "it arrives, and the host of the target counts", Reference: rfc(9112, "3.2.2"),
		Run: func(ctx context.Context, b *Bed) (Finding, error) {
			a, records, err := b.Ask(ctx, Request{Target: "http://" + b.host() + "/absolute"})
			if err != nil {
				return Finding{}, err
			}
			if len(records) != 1 {
				return decide(false, "sent: GET http://HOST/absolute; seen: answer %s; %s", a, seen(records))
			}
			m := records[0].Message
			target := strings.ReplaceAll(m.Target(), b.host(), "HOST")
			ok := strings.HasSuffix(m.Target(), "/absolute") && m.Get("Host") == b.host() && a.Status == 200
			return decide(ok, "sent: GET http://HOST/absolute; arrived as %s; answer %s", target, a)
		},
	}
}

// earlyAnswer is a refusal before the body has been read.
func earlyAnswer() Probe {
	answer := rawAnswer("HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large")
	answer.Early = true
	return Probe{
		Name: "http.early_answer", Question: "Does an answer come back that the application gives before it has read the body?",
		Expected: "the application's own answer comes back", Reference: rfc(9112, "9.5"),
		Run: func(ctx context.Context, b *Bed) (Finding, error) {
			c, err := b.Dial(ctx)
			if err != nil {
				return Finding{}, err
			}
			defer c.Close()
			key := b.Key()
			if err := b.Script(ctx, key, []origin.Answer{answer}); err != nil {
				return Finding{}, err
			}
			// The rest of the body is never sent: only an early answer ends this.
			a := c.Do(Request{Method: "POST", Key: key, Fields: field("Content-Length", "1000000")}.text(b.host()) + strings.Repeat("x", 1000))
			return decide(a.Status == 413, "sent: 1,000 of 1,000,000 bytes of a body; seen: %s", a)
		},
	}
}

// pipelining sends two requests before the first answer.
func pipelining() Probe {
	return Probe{
		Name: "http.pipelining", Question: "Are two requests answered in order that were sent at once?",
		Expected: "both, in order", Reference: rfc(9112, "9.3.2"),
		Run: func(ctx context.Context, b *Bed) (Finding, error) {
			c, err := b.Dial(ctx)
			if err != nil {
				return Finding{}, err
			}
			defer c.Close()
			first, second := b.Key(), b.Key()
			slow := canned(200, "first")
			slow.DelayMS = 100
			if err := b.Script(ctx, first, []origin.Answer{slow}); err != nil {
				return Finding{}, err
			}
			if err := b.Script(ctx, second, []origin.Answer{canned(200, "second")}); err != nil {
				return Finding{}, err
			}
			one := c.Do(Request{Key: first}.text(b.host()) + Request{Key: second}.text(b.host()))
			two := c.Answer("GET")
			return decide(string(one.Body) == "first" && string(two.Body) == "second", "sent: two GETs at once; seen: %s, then %s", one, two)
		},
	}
}

// keepAlive sends requests over one connection that the application ends
// each time.
func keepAlive() Probe {
	const n = 50
	return Probe{
		Name: "http.connection_close", Question: "Is no request lost when the application ends its connection after each answer?",
		Expected: "all are answered with 200", Reference: rfc(9112, "9.6"), Needs: Proxy,
		Run: func(ctx context.Context, b *Bed) (Finding, error) {
			key := b.Key()
			closing := rawAnswer("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
			closing.Then = origin.Close
			if err := b.Script(ctx, key, []origin.Answer{closing}); err != nil {
				return Finding{}, err
			}
			statuses := b.Many(ctx, n, Request{Key: key})
			return decide(statuses[200] == n, "sent: %d GETs, each answered with Connection: close; seen: %s", n, tally(statuses))
		},
	}
}

// tally tells how often each status came.
func tally(statuses map[int]int) string {
	var codes []int
	for s := range statuses {
		codes = append(codes, s)
	}
	slices.Sort(codes)
	var parts []string
	for _, s := range codes {
		if s == 0 {
			parts = append(parts, fmt.Sprintf("%d x no answer", statuses[s]))
			continue
		}
		parts = append(parts, fmt.Sprintf("%d x %d", statuses[s], s))
	}
	return list(parts)
}
