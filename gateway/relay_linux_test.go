package gateway

import (
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// TestRelayHearsTheBackendOut: what a backend said before it closed its connection
// counts, however much of it is still unread, and although the window updates for
// it meet a closed socket.
func TestRelayHearsTheBackendOut(t *testing.T) {
	t.Parallel()
	for range 20 {
		hearOut(t)
	}
}

func hearOut(t *testing.T) {
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{window: 1 << 30, settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1 << 30}}})
	const streams = 60 // each with all of its first window
	part := pattern(1, 16<<10)
	begin := func(first int) (p *peer, ids []uint32) {
		for i := range streams {
			client.headers(uint32(first+2*i), true, opening("/shop.Cart/Get")...)
		}
		p = s.accept(t)
		s.peers <- p
		for range streams {
			ids = append(ids, p.awaitRequest().id)
		}
		return p, ids
	}
	answer := func(p *peer, ids []uint32) {
		for _, id := range ids {
			p.headers(id, false, answerHead...)
			p.data(id, part, false)
		}
		for _, id := range ids { // when much window has been given back for the DATA
			p.headers(id, true, "grpc-status", "0")
		}
	}
	awaitOK := func(first int) {
		for i := range streams {
			id := uint32(first + 2*i)
			if e := client.await("end", func(e event) bool { return e.id == id && e.end }); e.get("grpc-status") != "0" {
				t.Fatalf("stream %d of %d ended with %v, the backend had said OK", i+1, streams, e)
			}
		}
	}
	const rounds = 3
	for r := range rounds { // the kernel's buffers grow with use
		p, ids := begin(1 + 2*streams*r)
		if r < rounds-1 {
			answer(p, ids)
		} else {
			p.atOnce(func() { answer(p, ids) }, func() {
				awaitAcknowledged(t, p.nc.(*net.TCPConn))
				p.nc.Close()
			})
		}
		awaitOK(1 + 2*streams*r)
	}
	g.end(t)
}

// awaitAcknowledged waits until all that was written is with the other side's
// kernel.
func awaitAcknowledged(t *testing.T, nc *net.TCPConn) {
	t.Helper()
	rc, err := nc.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	await(t, "all to be acknowledged", func() (empty bool) {
		rc.Control(func(fd uintptr) {
			n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
			empty = err == nil && n == 0
		})
		return empty
	})
}
