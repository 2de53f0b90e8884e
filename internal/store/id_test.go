package store_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/store"
)

func TestNewID(t *testing.T) {
	at := time.Date(2026, 11, 22, 9, 30, 0, 0, time.UTC)
	var ids []string
	for i := range 1000 {
		id := store.NewID(at.Add(time.Duration(i) * time.Millisecond))
		if err := store.CheckID(id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if !slices.IsSorted(ids) {
		t.Error("ids are not in the order of their times")
	}
	if a, b := store.NewID(at), store.NewID(at); a == b {
		t.Errorf("two ids of one millisecond are equal: %s", a)
	}
	parsed, err := ulid.ParseStrict(ids[7])
	if err != nil {
		t.Fatal(err)
	}
	if got := parsed.Timestamp(); !got.Equal(at.Add(7 * time.Millisecond)) {
		t.Errorf("the id says it was made at %s", got)
	}
}

// FuzzCheckID compares with the library that makes the ids.
func FuzzCheckID(f *testing.F) {
	for _, seed := range []string{"", "01M819EMH3YS3T972TWN6KH0WR", "01m819emh3ys3t972twn6kh0wr", "81M819EMH3YS3T972TWN6KH0WR", "01M819EMH3YS3T972TWN6KH0WI", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "01M819EMH3YS3T972TWN6KH0W\x00", "\u017f1M819EMH3YS3T972TWN6KH0W"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		err := store.CheckID(id)
		_, parseErr := ulid.ParseStrict(id)
		// The library takes lower case too; the store has one way to write it.
		want := parseErr == nil && id == strings.ToUpper(id)
		if (err == nil) != want {
			t.Errorf("%q: got %v, the library says %v", id, err, parseErr)
		}
		var e *meshbench.Error
		if err != nil && (!errors.As(err, &e) || e.Code != meshbench.Invalid || len(e.Message) > 400) {
			t.Errorf("%q: %v", id, err)
		}
	})
}

func FuzzParseReference(f *testing.F) {
	for _, seed := range []string{"", "latest", "LATEST ", "128", "#128", "0128", "01M8", "01m819emh3ys3t972twn6kh0wr", "8ABC", "99999999999999999999", "-5", "#", "1e3", "\x00", "01M8%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := store.ParseReference(text)
		if err != nil {
			var e *meshbench.Error
			if !errors.As(err, &e) || e.Code != meshbench.Invalid || e.Hint == "" || len(e.Message) > 400 {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		if ref.Latest {
			if ref != (store.Reference{Latest: true}) {
				t.Fatalf("%q: %+v", text, ref)
			}
			return
		}
		if ref.Number < 0 || ref.Number == 0 && ref.First == "" {
			t.Fatalf("%q: %+v names nothing", text, ref)
		}
		if ref.First != "" {
			if store.CheckID(ref.First) != nil || store.CheckID(ref.Last) != nil || ref.First > ref.Last {
				t.Fatalf("%q: %+v is no range of ids", text, ref)
			}
			prefix := strings.ToUpper(strings.TrimSpace(text))
			if !strings.HasPrefix(ref.First, prefix) || !strings.HasPrefix(ref.Last, prefix) {
				t.Fatalf("%q: %+v does not begin so", text, ref)
			}
		}
	})
}

// The golden value fixes the definition: hashes that were published stay true.
// It was computed with sha256sum from the text in HashDigests' comment.
func TestHashDigests(t *testing.T) {
	a, b := store.Digest([]byte(`{}`)), store.Digest([]byte(`[1]`))
	const want = "3c342daac70a58b9caf09c83bd13a0377dee3b5b76ed716de0b647988b0bad65"
	if got := store.HashDigests(a, []string{b, a}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
