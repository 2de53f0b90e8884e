package sqlstore

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/store"
)

// document is a value as it is kept: the digest of its JSON, and that JSON
// compressed. Histograms are base64 of compressed bytes in it; what gzip finds
// are the bits that base64 wastes and the names of the fields.
type document struct {
	digest string
	packed []byte
}

// pack writes a value. The error has code Invalid: what cannot be written as
// JSON (a number that is none) or is too large is the caller's.
func pack(what string, value any) (document, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return document{}, meshbench.Errorf(meshbench.Invalid, "%s cannot be written as JSON: %w", what, err)
	}
	if len(data) > store.MaxDocumentBytes {
		return document{}, meshbench.Errorf(meshbench.Invalid, "%s is %d bytes of JSON, the most that is stored is %d", what, len(data), store.MaxDocumentBytes)
	}
	var b bytes.Buffer
	// The time of compression lies between two trials; a better ratio is
	// bought with it until it shows in the pace of a run.
	w := gzip.NewWriter(&b)
	if _, err = w.Write(data); err == nil {
		err = w.Close()
	}
	if err != nil {
		return document{}, meshbench.Errorf(meshbench.Internal, "%s cannot be compressed: %w", what, err)
	}
	return document{digest: store.Digest(data), packed: b.Bytes()}, nil
}

// unpack reads what pack wrote into a value. A document that does not have
// its digest any more is refused; an empty digest is not compared.
func unpack(what string, d document, into any) error {
	damaged := func(err error) error {
		return meshbench.Errorf(meshbench.Unavailable, "%s is damaged in the store: %w", what, err).
			WithHint("restore the store from a copy, or remove this run")
	}
	r, err := gzip.NewReader(bytes.NewReader(d.packed))
	if err != nil {
		return damaged(err)
	}
	data, err := io.ReadAll(io.LimitReader(r, store.MaxDocumentBytes+1))
	if err != nil {
		return damaged(err)
	}
	if len(data) > store.MaxDocumentBytes {
		return damaged(meshbench.Errorf(meshbench.Invalid, "it is larger than %d bytes", store.MaxDocumentBytes))
	}
	if got := store.Digest(data); d.digest != "" && got != d.digest {
		return damaged(meshbench.Errorf(meshbench.Invalid, "its SHA-256 is %s, %s was written", got, d.digest))
	}
	if err := json.Unmarshal(data, into); err != nil {
		return damaged(err)
	}
	return nil
}

// packRun writes a run's experiment and the run, and makes sure that both can
// be read again: what is started must not turn out unreadable at its end.
func packRun(run meshbench.Run) (experiment, whole document, err error) {
	if experiment, err = pack("the experiment", run.Experiment); err != nil {
		return experiment, whole, err
	}
	if whole, err = pack("run "+run.ID, run); err != nil {
		return experiment, whole, err
	}
	var again meshbench.Run
	if err := unpack("run "+run.ID, whole, &again); err != nil {
		return experiment, whole, meshbench.Errorf(meshbench.Invalid, "run %s could not be read back from its JSON: %w", run.ID, err)
	}
	return experiment, whole, nil
}
