// Package telemetry reads what processes and the machine use: process CPU
// clocks, memory, per-CPU times and steal, control-group limits and
// throttling, and the fingerprint of the environment.
//
// CPU comes from the process CPU clock (nanoseconds, threads that ended
// included), not from the 10 ms ticks of /proc and not from the sum over
// living threads. Reading needs Linux; elsewhere the functions return an
// error of code unavailable and the fingerprint has what the language knows.
package telemetry
