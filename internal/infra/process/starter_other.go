//go:build !linux

package process

import "errors"

var errClosed = errors.New("the starter is closed")

// pin: no other system binds threads to CPUs on request.
func pin([]int) (restore func(), err error) { return func() {}, nil }

// usableCPUs: none to choose from.
func usableCPUs() []int { return nil }
