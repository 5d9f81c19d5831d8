package admin

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// boundSilence ends connections whose other end takes nothing for peerSilence: accepted
// sockets have it from the one that listens (tcp(7), TCP_USER_TIMEOUT). A host that lost
// its power would else be taken for there as long as TCP tries again, 15 minutes, and a
// registration that its stream keeps with it.
func boundSilence(_, _ string, conn syscall.RawConn) error {
	var failed error
	err := conn.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(peerSilence.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}
