package behavior

import (
	"context"
	"fmt"
	"strings"

	"github.com/meshbench/meshbench/internal/behavior/origin"
)

// malformed is a probe of a request that must be refused. build gets the
// lines that every request needs, Host and X-Probe.
func malformed(name, question, reference, sent string, build func(common string) string) Probe {
	return Probe{
		Name: name, Question: question, Expected: "it is refused (4xx or 501) and does not reach the application whole", Reference: reference, Needs: Proxy,
		Run: func(ctx context.Context, b *Bed) (Finding, error) {
			key := b.Key()
			a := b.Raw(ctx, build(fmt.Sprintf("Host: %s\r\n%s: %s\r\n", b.host(), origin.KeyField, key)))
			records, err := b.Records(ctx, key)
			if err != nil {
				return Finding{}, err
			}
			// A proxy that does not wait for the body may have sent the head on
			// before it knows; what counts is that no whole request arrives.
			whole := func(records []origin.Record) (out []origin.Record) {
				for _, r := range records {
					if r.Fault == "" {
						out = append(out, r)
					}
				}
				return out
			}
			if len(records) > 0 && a.Status/100 == 4 {
				if records, err = b.Settled(ctx, key, func(r []origin.Record) bool { return len(whole(r)) == 0 }); err != nil {
					return Finding{}, err
				}
			}
			started := len(records)
			records = whole(records)
			ok, saw := refused(a, records)
			if started > len(records) {
				saw += " whole (its head did, and then the connection ended)"
			}
			return decide(ok, "sent: %s; seen: %s", sent, saw)
		},
	}
}

func smugglingProbes() []Probe {
	return []Probe{
		smuggled(),
		malformed("smuggling.two_lengths", "Is a request with two different Content-Length fields refused?", rfc(9112, "6.3"),
			"Content-Length: 3 and Content-Length: 5",
			func(common string) string {
				return "POST / HTTP/1.1\r\n" + common + "Content-Length: 3\r\nContent-Length: 5\r\n\r\nhello"
			}),
		malformed("smuggling.unknown_coding", "Is a transfer coding refused that is only almost chunked?", rfc(9112, "6.1"),
			"Transfer-Encoding: xchunked",
			func(common string) string {
				return "POST / HTTP/1.1\r\n" + common + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"
			}),
		malformed("smuggling.space_before_colon", "Is white space between a field's name and its colon refused?", rfc(9112, "5.1"),
			"Content-Length : 5",
			func(common string) string {
				return "POST / HTTP/1.1\r\n" + common + "Content-Length : 5\r\n\r\nhello"
			}),
		malformed("smuggling.nul", "Is a NUL in a field's value refused?", rfc(9110, "5.5"),
			"a field with a NUL",
			func(common string) string { return "GET / HTTP/1.1\r\n" + common + "X-Nul: a\x00b\r\n\r\n" }),
		malformed("smuggling.chunk_length", "Is a chunk refused whose length is no number?", rfc(9112, "7.1"),
			"a chunk of length 0x5",
			func(common string) string {
				return "POST / HTTP/1.1\r\n" + common + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"
			}),
		malformed("smuggling.no_host", "Is a request of HTTP/1.1 without Host refused?", rfc(9112, "3.2"),
			"no Host field",
			func(common string) string {
				_, key, _ := strings.Cut(common, "\r\n")
				return "GET / HTTP/1.1\r\n" + key + "\r\n"
			}),
		malformed("smuggling.two_hosts", "Is a request with two Host fields refused?", rfc(9112, "3.2"),
			"two Host fields",
			func(common string) string { return "GET / HTTP/1.1\r\n" + common + "Host: other.example\r\n\r\n" }),
		folded(),
	}
}

// smuggled sends both framings, and behind the body that ends by the one a
// request that only exists by the other.
func smuggled() Probe {
	return Probe{
		Name: "smuggling.length_and_chunks", Question: "Can a request hide in one that has Content-Length and Transfer-Encoding?",
		Expected: "it is refused, or arrives without Content-Length; the hidden one never arrives", Reference: rfc(9112, "6.3"), Needs: Proxy,
		Run: func(ctx context.Context, b *Bed) (Finding, error) {
			key := b.Key()
			inner := fmt.Sprintf("GET /hidden HTTP/1.1\r\nHost: %s\r\n%s: %s\r\n\r\n", b.host(), origin.KeyField, b.Key())
			body := "0\r\n\r\n" + inner
			a := b.Raw(ctx, fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s\r\n%s: %s\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n%s",
				b.host(), origin.KeyField, key, len(body), body))
			// By chunks, which win, the hidden one is a request of its own,
			// lawfully pipelined; the danger is that a proxy forwards one and
			// the application sees two, or both framings arrive.
			records, err := b.Records(ctx, key)
			if err != nil {
				return Finding{}, err
			}
			if len(records) == 0 {
				return decide(a.Status/100 == 4, "sent: both framings; seen: answer %s; nothing arrived", a)
			}
			m := records[0].Message
			both := m.Has("Content-Length") && m.Has("Transfer-Encoding")
			return decide(!both, "sent: both framings; arrived with Content-Length %s and Transfer-Encoding %s; answer %s",
				quoted(valuesOf(m.Get("Content-Length"))), quoted(valuesOf(m.Get("Transfer-Encoding"))), a)
		},
	}
}

func valuesOf(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// folded is a field over two lines.
func folded() Probe {
	return Probe{
		Name: "smuggling.folded_field", Question: "Is a field that goes on in the next line refused or put on one line?",
		Expected: "refused, or arrives on one line", Reference: rfc(9112, "5.2"), Needs: Proxy,
		Run: func(ctx context.Context, b *Bed) (Finding, error) {
			key := b.Key()
			a := b.Raw(ctx, fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n%s: %s\r\nX-Fold: one\r\n two\r\nX-After: 1\r\n\r\n", b.host(), origin.KeyField, key))
			records, err := b.Records(ctx, key)
			if err != nil {
				return Finding{}, err
			}
			if len(records) == 0 {
				return decide(a.Status/100 == 4, "sent: X-Fold over two lines; seen: answer %s; nothing arrived", a)
			}
			m := records[0].Message
			return decide(m.Get("X-Fold") == "one two", "sent: X-Fold over two lines; arrived as %s; answer %s", quoted(valuesOf(m.Get("X-Fold"))), a)
		},
	}
}
