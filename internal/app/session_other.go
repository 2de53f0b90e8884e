//go:build !unix

package app

import "syscall"

func ownSession() *syscall.SysProcAttr { return nil }
