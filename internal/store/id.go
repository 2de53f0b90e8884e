package store

import (
	"crypto/rand"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/meshbench/meshbench"
)

// alphabet is Crockford's base 32 (https://www.crockford.com/base32.html), in
// which a ULID (https://github.com/ulid/spec) is written.
const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// idLength is the length of a ULID in characters.
const idLength = 26

// minPrefix is the shortest prefix that names a run.
const minPrefix = 4

// NewID returns a new ULID for a run that starts now: 26 characters, whose
// order is that of the times in milliseconds. The rest is random, so that ids
// of several machines can be put together. It panics for a time that a ULID
// cannot hold (before 1970, after the year 10889).
func NewID(now time.Time) string {
	return ulid.MustNew(ulid.Timestamp(now), rand.Reader).String()
}

// CheckID returns nil for an id as NewID writes it, else an error of code
// Invalid.
func CheckID(id string) error {
	if len(id) == idLength && id[0] <= '7' && strings.Trim(id, alphabet) == "" {
		return nil
	}
	return meshbench.Errorf(meshbench.Invalid, "%s is not the id of a run", quote(id)).
		WithHint("an id is a ULID: 26 digits and upper-case letters")
}

// Reference is a way to name a run. Exactly one field is set, or Number and
// First: a word of digits is a number first and a prefix where no run has it.
type Reference struct {
	Latest bool
	Number int64
	First  string // the lowest and
	Last   string // the highest id that is meant; equal for a whole id
}

// ParseReference reads what people write to name a run: its id, the first 4
// characters of it or more, its number (128 or #128), or "latest". Case does
// not matter. The error has code Invalid.
func ParseReference(text string) (Reference, error) {
	word := strings.ToUpper(strings.TrimSpace(text))
	if word == "LATEST" {
		return Reference{Latest: true}, nil
	}
	var ref Reference
	number, marked := strings.CutPrefix(word, "#")
	// An id begins with a zero until the year 3084, a number never does.
	if number != "" && number[0] != '0' && strings.Trim(number, "0123456789") == "" {
		if n, err := strconv.ParseInt(number, 10, 64); err == nil {
			ref.Number = n
		}
	}
	if !marked && len(word) >= minPrefix && len(word) <= idLength && word[0] <= '7' && strings.Trim(word, alphabet) == "" {
		ref.First = word + strings.Repeat("0", idLength-len(word))
		ref.Last = word + strings.Repeat("Z", idLength-len(word))
	}
	if ref == (Reference{}) {
		return ref, meshbench.Errorf(meshbench.Invalid, "%s does not name a run", quote(text)).
			WithHint("give its id, the first %d characters of it or more, its number, or latest; `meshbench results list` shows them", minPrefix)
	}
	return ref, nil
}

// quote makes a word fit to stand in a message, whatever it holds.
func quote(text string) string {
	const most = 60
	if len(text) > most {
		return strconv.Quote(text[:most]) + "..."
	}
	return strconv.Quote(text)
}
