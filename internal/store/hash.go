package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/meshbench/meshbench"
)

// Digest returns the SHA-256 of a document, in hexadecimal.
func Digest(document []byte) string {
	sum := sha256.Sum256(document)
	return hex.EncodeToString(sum[:])
}

// HashDigests combines the digests of an experiment and of its trials, in the
// order in which they were added, to a content hash: the SHA-256, in
// hexadecimal, of a text of one line each, ended by a line feed,
//
//	meshbench content 1
//	experiment DIGEST
//	trial 1 DIGEST
//	trial 2 DIGEST
//
// so that a store need not read the trials again, and anybody can check one
// trial without the others. A digest is the Digest of a JSON document as
// encoding/json writes it: compact, with the keys of maps sorted.
func HashDigests(experiment string, trials []string) string {
	h := sha256.New()
	fmt.Fprintf(h, "meshbench content 1\nexperiment %s\n", experiment)
	for i, t := range trials {
		fmt.Fprintf(h, "trial %d %s\n", i+1, t)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ContentHash returns the content hash (see HashDigests) of an experiment and
// its trials: two runs with equal ones hold the same measurements of the same
// thing. The headline, the fingerprint and what was concluded are no part of
// it.
func ContentHash(experiment meshbench.Experiment, trials []meshbench.Trial) (string, error) {
	data, err := json.Marshal(experiment)
	if err != nil {
		return "", meshbench.Errorf(meshbench.Invalid, "the experiment cannot be written as JSON: %w", err)
	}
	digests := make([]string, len(trials))
	for i, t := range trials {
		trial, err := json.Marshal(t)
		if err != nil {
			return "", meshbench.Errorf(meshbench.Invalid, "trial %d cannot be written as JSON: %w", i+1, err)
		}
		digests[i] = Digest(trial)
	}
	return HashDigests(Digest(data), digests), nil
}
