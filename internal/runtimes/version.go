package runtimes

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/meshbench/meshbench"
)

// version is a version as people ask for it and as programs report it: one to
// three numbers, and what follows a hyphen, as in 1.40, 1.40.0 or 1.41.0-dev.
type version struct {
	number [3]int
	parts  int    // how many of the numbers were given, 1 to 3
	suffix string // after the hyphen: a build that was never released
}

// maxVersionText bounds what parseVersion reads; no real version is longer.
const maxVersionText = 64

// parseVersion reads a version. A leading v is allowed.
func parseVersion(text string) (version, bool) {
	if len(text) > maxVersionText {
		return version{}, false
	}
	numbers, suffix, hyphen := strings.Cut(strings.TrimPrefix(text, "v"), "-")
	if hyphen && !isSuffix(suffix) {
		return version{}, false
	}
	fields := strings.Split(numbers, ".")
	if len(fields) > 3 {
		return version{}, false
	}
	v := version{parts: len(fields), suffix: suffix}
	for i, f := range fields {
		// Atoi takes signs, which a version has not, and the length bounds the number.
		n, err := strconv.Atoi(f)
		if err != nil || len(f) > 6 || f[0] < '0' || f[0] > '9' {
			return version{}, false
		}
		v.number[i] = n
	}
	return v, true
}

func isSuffix(s string) bool {
	for _, r := range s {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '.' && r != '-' && r != '+' {
			return false
		}
	}
	return s != ""
}

// String writes the version as it was given, without a leading v.
func (v version) String() string {
	var b strings.Builder
	for i := range v.parts {
		if i > 0 {
			b.WriteByte('.')
		}
		fmt.Fprintf(&b, "%d", v.number[i])
	}
	if v.suffix != "" {
		b.WriteString("-" + v.suffix)
	}
	return b.String()
}

// matches tells whether v, a whole version, is one that the wish w names:
// 1.40.2 is a 1.40, and a 1. An unreleased build is named only by its whole
// self.
func (v version) matches(w version) bool {
	return v.suffix == w.suffix && slices.Equal(v.number[:w.parts], w.number[:w.parts])
}

func compareVersions(a, b version) int {
	return cmp.Or(slices.Compare(a.number[:], b.number[:]), -cmp.Compare(boolInt(a.suffix != ""), boolInt(b.suffix != "")), cmp.Compare(a.suffix, b.suffix))
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// distance orders versions by how near they are to v: the first number weighs
// more than the second, and that more than the third.
func (v version) distance(to version) [3]int {
	var d [3]int
	for i := range d {
		d[i] = max(v.number[i]-to.number[i], to.number[i]-v.number[i])
	}
	return d
}

// parseReport finds the version in what a program prints when it is asked for
// it. Envoy prints
//
//	envoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL
//
// with the path that it was started by in front, and a path may hold a version
// of its own; so what follows the last "version:" is read, if there is one.
func parseReport(output string) (version, bool) {
	if i := strings.LastIndex(output, "version:"); i >= 0 {
		output = output[i+len("version:"):]
	}
	for f := range strings.FieldsFuncSeq(output, func(r rune) bool { return strings.ContainsRune("/,;()\" \t\r\n", r) }) {
		if v, ok := parseVersion(f); ok && v.parts == 3 {
			return v, true
		}
	}
	return version{}, false
}

// ParseRef splits a runtime's name with its version, "envoy@1.40.0"; the
// version is empty where none is given. Errors are of code invalid.
func ParseRef(ref string) (name, version string, err error) {
	name, version, at := strings.Cut(ref, "@")
	if name == "" || at && version == "" {
		return "", "", meshbench.Errorf(meshbench.Invalid, "runtime %q: expected NAME or NAME@VERSION", ref).
			WithHint("for example: envoy, envoy@1.40, envoy@1.40.0")
	}
	return name, version, nil
}
