// Package meshbench is the vocabulary of the project: the words of the field
// (experiment, subject, cell, trial, sitting, measurement, run, verdict) as
// types that every other package speaks.
//
// It imports the standard library only. Histograms travel encoded (HDR V2,
// compressed, base64 in JSON), so that no reader needs the library that made
// them. Units are part of every name: _us, _bytes, _rps, _seconds in JSON and
// the same words in Go.
package meshbench
