//go:build !linux

package program

import "syscall"

// dieWithParent would have the system kill a process when the test has died that started it; here it cannot.
func dieWithParent() *syscall.SysProcAttr { return nil }
