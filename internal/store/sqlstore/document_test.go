package sqlstore

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"strings"
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/store"
)

func TestDocumentDamaged(t *testing.T) {
	good, err := pack("it", map[string]string{"a": strings.Repeat("b", 100)})
	if err != nil {
		t.Fatal(err)
	}
	zip := func(data []byte) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	flipped := bytes.Clone(good.packed)
	flipped[len(flipped)/2] ^= 0x10
	for name, d := range map[string]document{
		"empty":          {},
		"no gzip":        {packed: []byte(`{"a": "b"}`)},
		"cut off":        {digest: good.digest, packed: good.packed[:len(good.packed)-9]},
		"a bit":          {digest: good.digest, packed: flipped},
		"another digest": {digest: store.Digest(nil), packed: good.packed},
		"no JSON":        {packed: zip([]byte("{"))},
		// 16 MiB and a byte are 16 kB packed: what it unpacks to is bounded.
		"a bomb": {packed: zip(make([]byte, store.MaxDocumentBytes+1))},
	} {
		var into map[string]string
		err := unpack("trial 3 of run X", d, &into)
		e := meshbench.AsError(err)
		if e == nil || e.Code != meshbench.Unavailable || e.Hint == "" || !strings.Contains(e.Message, "trial 3 of run X is damaged") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzDocument(f *testing.F) {
	d, err := pack("it", meshbench.Trial{Cell: "none", Load: meshbench.LoadResult{Batches: []meshbench.Batch{{Count: 3}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d.packed)
	f.Add([]byte{})
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	f.Fuzz(func(t *testing.T, packed []byte) {
		var trial meshbench.Trial
		if err := unpack("it", document{packed: packed}, &trial); err != nil {
			if e := meshbench.AsError(err); e.Code != meshbench.Unavailable {
				t.Fatalf("%v has code %s", err, e.Code)
			}
			return
		}
		// What can be read can be written, and reads the same.
		again, err := pack("it", trial)
		if err != nil {
			t.Fatal(err)
		}
		var second meshbench.Trial
		if err := unpack("it", again, &second); err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(trial)
		b, _ := json.Marshal(second)
		if !bytes.Equal(a, b) {
			t.Fatalf("%s became %s", a, b)
		}
	})
}
