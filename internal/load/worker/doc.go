// Package worker is the generator as a process of its own, and the protocol
// between it and who drives it: numbered lines of JSON (load.Message) over any
// two streams. Serve is what `meshbench worker` runs; Connect and Run drive
// one worker, RunAll several.
//
// The load holds a lease: it ends when no message has come for LeaseTime, or
// when the input closes, so that a worker never outlives who started it.
package worker
