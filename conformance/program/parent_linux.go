package program

import "syscall"

// dieWithParent has the system kill a process when the test has died that started it.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
