package faults

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// tornRelay passes bytes to a backend and back, and resets each connection when so
// many bytes have come back as it happens to like.
type tornRelay struct {
	listener net.Listener
	to       string
	most     int // bytes that a connection may bring at most
	mu       sync.Mutex
	conns    map[net.Conn]bool
	running  sync.WaitGroup
	torn     int
}

func startTornRelay(t *testing.T, to string, most int) *tornRelay {
	t.Helper()
	l, err := net.Listen("tcp", newAddress())
	if err != nil {
		t.Fatal(err)
	}
	r := &tornRelay{listener: l, to: to, most: most, conns: map[net.Conn]bool{}}
	r.running.Go(r.accept)
	t.Cleanup(r.close)
	return r
}

func (r *tornRelay) accept() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", r.to)
		if err != nil {
			near.Close()
			continue
		}
		r.mu.Lock()
		r.conns[near], r.conns[far] = true, true
		r.mu.Unlock()
		r.running.Go(func() {
			_, _ = io.Copy(far, near) // ends when either is closed
		})
		r.running.Go(func() {
			_, _ = io.CopyN(near, far, 1+rand.Int64N(int64(r.most)))
			near.(*net.TCPConn).SetLinger(0) // a reset, and what was not sent is lost
			near.Close()
			far.Close()
			r.mu.Lock()
			defer r.mu.Unlock()
			r.torn++
		})
	}
}

func (r *tornRelay) close() {
	r.listener.Close()
	r.mu.Lock()
	for nc := range r.conns {
		nc.Close()
	}
	r.mu.Unlock()
	r.running.Wait()
}

func (r *tornRelay) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.torn
}

func TestTornAnswersAreNeverWhole(t *testing.T) {
	longOnly(t)
	s := begin(t, "connections to two of three backends are reset after 0 to 200 KB, answers of 4 KB")
	backends := startBackends(t, 3, "b")
	list := endpoints(backends[2])
	var relays []*tornRelay
	for _, b := range backends[:2] {
		relay := startTornRelay(t, b.address(), 200_000)
		relays = append(relays, relay)
		list = list[:len(list)-1] + ", {address: \"" + relay.listener.Addr().String() + "\"}]"
	}
	g := startGateway(t)
	g.apply(manifest(list, "outlierDetection: {disabled: true}", ""))
	r := load{rate: 1000, size: 4096}.begin(t, g)
	wait(8 * time.Second)
	all := r.stop()
	torn := relays[0].count() + relays[1].count()
	s.holds(all)
	other := 0
	for _, f := range all.failed() {
		if f.code != codes.Unavailable {
			other++
		}
	}
	s.note("%d connections reset", torn)
	s.want(torn >= 20 && len(all.failed()) > 0, "20 resets at least", "%d failed", len(all.failed()))
	s.want(other == 0 && all.wrong() == 0, "every one of them UNAVAILABLE, none torn and OK", "%d with another code, %d torn and OK", other, all.wrong())
	if other > 0 {
		t.Logf("errors:\n%s", all.errors())
	}
}
