// Package process starts programs for infrastructures: on chosen CPUs, bound
// to the life of the one who starts them, with an environment exactly as
// given. It knows which CPUs generator and system shall have, and it runs the
// generator's worker process.
package process
