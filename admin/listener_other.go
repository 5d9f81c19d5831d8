//go:build !linux

package admin

import "syscall"

// boundSilence leaves it to the system when it gives up who does not answer.
func boundSilence(_, _ string, _ syscall.RawConn) error { return nil }
