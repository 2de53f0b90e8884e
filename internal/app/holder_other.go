//go:build !linux

package app

import (
	"fmt"
	"os"
)

// holder names this process in a lease.
func holder() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}

// gone cannot tell here: runs that were cut off wait for their lease's end.
func gone(string) bool { return false }
