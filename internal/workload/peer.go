package workload

import "strings"

// PeerName returns the SPIFFE name of the nearest client in a value of the
// header X-Forwarded-Client-Cert; empty if there is none. The header is
// Envoy's: elements separated by commas, the nearest client's last, each of
// key=value pairs separated by semicolons, values with separators in double
// quotes, in which a backslash escapes (Envoy's documentation of HTTP
// headers, "x-forwarded-client-cert"). Of several URI pairs the first SPIFFE
// name counts.
func PeerName(header string) string {
	elements := splitQuoted(header, ',')
	for _, pair := range splitQuoted(elements[len(elements)-1], ';') {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(key), "URI") {
			continue
		}
		if name := unquote(strings.TrimSpace(value)); strings.HasPrefix(name, "spiffe://") {
			return name
		}
	}
	return ""
}

// splitQuoted splits at separators outside of double quotes; it returns at
// least one part.
func splitQuoted(text string, separator byte) []string {
	var out []string
	quoted, start := false, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == separator && !quoted:
			out = append(out, text[start:i])
			start = i + 1
		}
	}
	return append(out, text[start:])
}

func unquote(value string) string {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return value
	}
	value = value[1 : len(value)-1]
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		if value[i] == '\\' && i+1 < len(value) {
			i++
		}
		b.WriteByte(value[i])
	}
	return b.String()
}
