// Package histogram reads, writes and pools the histograms that measurements
// carry: HDR V2, compressed, three significant digits, in units of 1 ns up to
// one hour. The bytes are the raw form; JSON shows them in base64, which is
// the text that every other HDR tool exchanges (it begins with HISTF).
package histogram

import (
	"encoding/base64"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/meshbench/meshbench"
)

// The geometry of every histogram that Meshbench makes, in nanoseconds.
const (
	Lowest  = 1
	Highest = 3_600_000_000_000
	Digits  = 3
)

// New returns an empty histogram of the project's geometry.
func New() *hdr.Histogram { return hdr.New(Lowest, Highest, Digits) }

// Encode returns the raw bytes of HDR V2, compressed.
func Encode(h *hdr.Histogram) ([]byte, error) {
	text, err := h.Encode(hdr.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Internal, "encode a histogram: %w", err)
	}
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(raw, text)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Internal, "encode a histogram: %w", err)
	}
	return raw[:n], nil
}

// Decode reads what Encode returns. Bytes that are no histogram are an error
// of code invalid; no bytes at all are an empty histogram.
func Decode(raw []byte) (*hdr.Histogram, error) {
	if len(raw) == 0 {
		return New(), nil
	}
	h, err := hdr.Decode([]byte(base64.StdEncoding.EncodeToString(raw)))
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Invalid, "%d bytes are no HDR V2 histogram: %w", len(raw), err)
	}
	return h, nil
}

// Rank returns the k-th smallest recorded value (k from 1) in microseconds,
// to the histogram's precision: the highest value of its bucket, as the
// quantiles of HDR tools are.
func Rank(h *hdr.Histogram, k int64) meshbench.Microseconds {
	n := h.TotalCount()
	if n == 0 {
		return 0
	}
	// Half a count below k: the library rounds the rank up, and dividing must
	// not push it over by a last bit.
	return meshbench.Microseconds(h.ValueAtPercentile(100*(float64(k)-0.5)/float64(n))) / 1000
}
