package runtimes

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
)

// member is one file of an archive that a test makes.
type member struct {
	name string
	text string
	mode fs.FileMode
}

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, m := range members {
		h := &zip.FileHeader{Name: m.name, Method: zip.Deflate}
		h.SetMode(m.mode | 0o644)
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(m.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestExtract(t *testing.T) {
	good := archive(t, member{name: "a/b", text: "program"}, member{name: "a/c", text: "other"})
	// The size that an archive declares for a member can be a lie.
	bomb := archive(t, member{name: "a/b", text: strings.Repeat("0", 1000)})
	if i := bytes.LastIndex(bomb, []byte("PK\x01\x02")); i < 0 {
		t.Fatal("the archive has no table of contents")
	} else {
		copy(bomb[i+24:], []byte{7, 0, 0, 0})
	}
	flipped := bytes.Clone(good)
	flipped[bytes.Index(flipped, []byte("a/b"))+4] ^= 0xff
	for name, c := range map[string]struct {
		archive []byte
		want    string // what the error says; empty: it is unpacked
	}{
		"good":               {good, ""},
		"empty":              {nil, "no zip archive"},
		"cut off":            {good[:len(good)-30], "no zip archive"},
		"damaged":            {flipped, "a/b"},
		"without the member": {archive(t, member{name: "a/c"}), "no member"},
		"twice":              {archive(t, member{name: "a/b"}, member{name: "a/b"}), "two members"},
		"a link":             {archive(t, member{name: "a/b", text: "/etc/passwd", mode: fs.ModeSymlink}), "no regular file"},
		"a folder":           {archive(t, member{name: "a/b", mode: fs.ModeDir}), "a/b"},
		"too large":          {archive(t, member{name: "a/b", text: "programme"}), "more than 7"},
		"larger than said":   {bomb, "a/b"},
		"leads up":           {archive(t, member{name: "../b"}, member{name: "a/b", text: "program"}), "leads out"},
		"leads to the root":  {archive(t, member{name: "/etc/b"}, member{name: "a/b", text: "program"}), "leads out"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			var last int64
			err := extract(context.Background(), bytes.NewReader(c.archive), int64(len(c.archive)), "a/b", 7, &out, func(n int64) { last = n })
			if c.want == "" {
				if err != nil || out.String() != "program" || last != 7 {
					t.Errorf("got %q and progress %d, %v", out.String(), last, err)
				}
				return
			}
			if e := meshbench.AsError(err); e == nil || e.Code != meshbench.Unavailable || !strings.Contains(e.Message, c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if out.Len() > 8 {
				t.Errorf("%d bytes were unpacked", out.Len())
			}
		})
	}
}

func TestExtractTooManyMembers(t *testing.T) {
	members := make([]member, maxMembers+1)
	for i := range members {
		members[i].name = "x"
	}
	a := archive(t, members...)
	err := extract(context.Background(), bytes.NewReader(a), int64(len(a)), "x", 1, new(bytes.Buffer), nil)
	if err == nil || !strings.Contains(err.Error(), "members, more than") {
		t.Errorf("got %v", err)
	}
}

func TestExtractToAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	a := archive(t, member{name: "x", text: "program"})
	e := meshbench.AsError(extract(context.Background(), bytes.NewReader(a), int64(len(a)), "x", 100, full, nil))
	if e == nil || !strings.Contains(e.Message, "the disk is full") || e.Hint == "" {
		t.Errorf("got %+v", e)
	}
}

func TestExtractStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	a := archive(t, member{name: "x", text: "program"})
	if err := extract(ctx, bytes.NewReader(a), int64(len(a)), "x", 100, new(bytes.Buffer), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(archive(f, member{name: "x", text: "program"}))
	f.Add(archive(f, member{name: "x", text: "p", mode: fs.ModeSymlink}, member{name: "../y"}))
	f.Add([]byte("PK\x05\x06"))
	f.Add([]byte(nil))
	const limit = 1 << 12
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		err := extract(context.Background(), bytes.NewReader(data), int64(len(data)), "x", limit, &out, nil)
		if err == nil && out.Len() > limit || out.Len() > limit+1 {
			t.Errorf("%d bytes were unpacked, the limit is %d (%v)", out.Len(), limit, err)
		}
		if err != nil && meshbench.AsError(err).Code != meshbench.Unavailable {
			t.Errorf("an archive gave %v", err)
		}
	})
}
