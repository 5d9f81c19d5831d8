package admin

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestConnectionsOfThePortAreBoundInSilence(t *testing.T) {
	l, err := (&net.ListenConfig{Control: boundSilence}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if err := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }); err != nil {
		t.Fatal(err)
	}
	if err != nil || got != int(peerSilence.Milliseconds()) {
		t.Errorf("an accepted connection has TCP_USER_TIMEOUT %d, %v, want %d", got, err, peerSilence.Milliseconds())
	}
}
