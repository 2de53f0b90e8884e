// Package load is the generator: it offers requests at intended times that a
// seed fixes before the run, and measures what becomes of every one of them.
//
// One loop has one locked operating system thread, its own epoll and no
// timers, goroutines or allocation between requests (engine_linux.go). Its
// counts leave it every 100 ms as one line of a stream (Message); an Aggregate
// on the other side of that stream folds them into a meshbench.LoadResult,
// decides the load state and gives the verdict. Nothing that is shared with
// the subject under test ever decides what is measured: the arrivals are fixed
// by Job.Seed, and the backlog is a second cursor on the same stream.
//
// Run drives a loop in this process; package worker drives one in a process
// of its own, which is how measurements are made.
package load
