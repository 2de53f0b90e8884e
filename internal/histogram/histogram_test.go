package histogram_test

import (
	"bytes"
	"encoding/base64"
	"testing"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/histogram"
)

func TestRoundTripAndMerge(t *testing.T) {
	a, b, both := histogram.New(), histogram.New(), histogram.New()
	for i := int64(1); i < 5000; i += 7 {
		into := a
		if i%2 == 0 {
			into = b
		}
		for _, h := range []interface{ RecordValue(int64) error }{into, both} {
			if err := h.RecordValue(i * i * 31); err != nil {
				t.Fatal(err)
			}
		}
	}
	raw, err := histogram.Encode(a)
	if err != nil {
		t.Fatal(err)
	}
	if text := base64.StdEncoding.EncodeToString(raw); text[:5] != "HISTF" {
		t.Errorf("in base64 it begins with %q", text[:5])
	}
	back, err := histogram.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	back.Merge(b)
	pooled, err := histogram.Encode(back)
	if err != nil {
		t.Fatal(err)
	}
	want, err := histogram.Encode(both)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pooled, want) {
		t.Error("merged histograms differ from the histogram of the pooled values")
	}
}

func TestRank(t *testing.T) {
	h := histogram.New()
	if got := histogram.Rank(h, 1); got != 0 {
		t.Errorf("of an empty histogram: %v", got)
	}
	for v := int64(1); v <= 1000; v++ {
		if err := h.RecordValue(v); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []int64{1, 2, 500, 990, 999, 1000} { // 1 ns buckets up to 2047
		if got, want := histogram.Rank(h, k), meshbench.Microseconds(k)/1000; got != want {
			t.Errorf("rank %d: %v, want %v", k, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	raw, err := histogram.Encode(histogram.New())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(nil))
	f.Add([]byte("HISTFAAAA"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := histogram.Decode(data)
		if err == nil && h == nil {
			t.Error("neither a histogram nor an error")
		}
		if err != nil && meshbench.AsError(err).Code != meshbench.Invalid {
			t.Errorf("code %v", meshbench.AsError(err).Code)
		}
	})
}
