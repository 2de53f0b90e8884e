// Package local is the infrastructure of processes on this machine's
// loopback device. It needs Linux.
//
// Processes are started and ended by a supervisor: a small process of the
// same program that holds a pipe to the one that measures. When the pipe
// closes, for whatever reason, it ends everything that it has started, with
// all descendants. What it has started stands in a journal on disk, so that
// Recover can finish the work if the supervisor was killed, too.
package local
