package meshbench

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Subject is what is compared: a mesh at a version with options, or, for the
// infrastructure "endpoint", a named URL that someone else runs.
type Subject struct {
	ID      string            `json:"id"`                // unique in a run; a repeat gets "#2"
	Mesh    string            `json:"mesh"`              // "none", "envoy", ...; "endpoint" for a URL
	Version string            `json:"version,omitempty"` // as asked for; empty is the driver's default
	Options map[string]string `json:"options,omitempty"`
}

var subjectWord = regexp.MustCompile(`^[A-Za-z0-9._+-]+$`)

// ParseSubject reads mesh[@version][:option=value]..., as in
// envoy@1.40:mtls=strict. The notation has no character that a shell or a
// comma-separated list would take for its own.
func ParseSubject(text string) (Subject, error) {
	parts := strings.Split(text, ":")
	mesh, version, at := strings.Cut(parts[0], "@")
	s := Subject{Mesh: mesh, Version: version}
	if !subjectWord.MatchString(mesh) || at && !subjectWord.MatchString(version) {
		return Subject{}, Errorf(Invalid, "subject %q: expected mesh[@version][:option=value]", text).
			WithHint("for example: none, envoy, envoy@1.40")
	}
	for _, p := range parts[1:] {
		k, v, ok := strings.Cut(p, "=")
		if !ok || !subjectWord.MatchString(k) || !subjectWord.MatchString(v) {
			return Subject{}, Errorf(Invalid, "subject %q: option %q is not of the form name=value", text, p)
		}
		if _, twice := s.Options[k]; twice {
			return Subject{}, Errorf(Invalid, "subject %q: option %q is given twice", text, k)
		}
		if s.Options == nil {
			s.Options = map[string]string{}
		}
		s.Options[k] = v
	}
	s.ID = s.String()
	return s, nil
}

// ParseSubjects reads a list and makes the ids unique: a repeat of "none"
// becomes "none#2".
func ParseSubjects(texts []string) ([]Subject, error) {
	seen := map[string]int{}
	out := make([]Subject, 0, len(texts))
	for _, t := range texts {
		s, err := ParseSubject(t)
		if err != nil {
			return nil, err
		}
		seen[s.ID]++
		if n := seen[s.ID]; n > 1 {
			s.ID = fmt.Sprintf("%s#%d", s.ID, n)
		}
		out = append(out, s)
	}
	return out, nil
}

// String returns the subject in the notation that ParseSubject reads, with
// its options in order of their names.
func (s Subject) String() string {
	var b strings.Builder
	b.WriteString(s.Mesh)
	if s.Version != "" {
		b.WriteString("@" + s.Version)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Options)) {
		b.WriteString(":" + k + "=" + s.Options[k])
	}
	return b.String()
}
