//go:build !linux

package process

// StepBack does nothing here: nothing is measured on this machine but URLs.
func StepBack() {}
