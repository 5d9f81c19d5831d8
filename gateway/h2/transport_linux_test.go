package h2

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wrapped is a connection of somebody else's, on a socket.
type wrapped struct{ net.Conn }

func (w wrapped) SyscallConn() (syscall.RawConn, error) { return w.Conn.(syscall.Conn).SyscallConn() }

func TestTransportSetsTheSocketsOptions(t *testing.T) {
	a, b := transportSockets(t, false)
	for name, nc := range map[string]net.Conn{"bare": a, "wrapped": wrapped{b}} {
		t.Run(name, func(t *testing.T) {
			transport := NewTransport(nc, nil)
			if err := transport.setUserTimeout(15 * time.Second); err != nil {
				t.Error(err)
			}
			for option, want := range map[int]int{
				unix.TCP_NOTSENT_LOWAT: transportUnsent,
				unix.TCP_USER_TIMEOUT:  15000,
				unix.TCP_NODELAY:       1,
			} {
				got := -1
				transport.raw.Control(func(fd uintptr) {
					got, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option)
				})
				if got != want {
					t.Errorf("option %d is %d; want %d", option, got, want)
				}
			}
		})
	}
}

func TestTransportWorksOnUnixSockets(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*Transport
	for i, fd := range fds {
		nc, err := net.FileConn(os.NewFile(uintptr(fd), "socket"))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		ends[i] = NewTransport(nc, nil)
	}
	const total = 4 << 20
	sent := make(chan error, 1)
	go func() { sent <- transportSend(ends[0], total) }()
	if err := transportReceive(ends[1], total, func() {}); err != nil {
		t.Error(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
