package gateway

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ownAddresses are those at which the gateway's ports can be reached from this machine.
// An endpoint at the one for RPCs would send them round for ever; one at that of
// operators would publish what may be for this machine alone.
type ownAddresses struct {
	mu     sync.Mutex       // guards the fields below
	at     []netip.AddrPort // of the listeners
	local  []netip.Addr
	readAt time.Time
}

// ownEvery is how often the machine is asked for its addresses, at most.
const ownEvery = 10 * time.Second

func newOwnAddresses(listener net.Addr) *ownAddresses {
	o := &ownAddresses{}
	o.add(listener)
	return o
}

// add takes one more listener, unless it has no port.
func (o *ownAddresses) add(listener net.Addr) {
	if a, ok := listener.(*net.TCPAddr); ok {
		at := a.AddrPort()
		o.mu.Lock()
		defer o.mu.Unlock()
		o.at = append(o.at, netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port()))
	}
}

// has tells whether an address is one of them.
func (o *ownAddresses) has(a netip.AddrPort) bool {
	addr := a.Addr().Unmap().WithZone("")
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, at := range o.at {
		switch {
		case a.Port() != at.Port():
		case !at.Addr().IsUnspecified():
			if addr == at.Addr() {
				return true
			}
		case addr.IsLoopback() || addr.IsUnspecified() || slices.Contains(o.machine(), addr):
			return true
		}
	}
	return false
}

// list is all of them, for those who have to tell them apart themselves.
func (o *ownAddresses) list() (list []netip.AddrPort) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, at := range o.at {
		list = append(list, at)
		if !at.Addr().IsUnspecified() {
			continue
		}
		for _, local := range o.machine() {
			list = append(list, netip.AddrPortFrom(local, at.Port()))
		}
	}
	return list
}

// machine are the addresses of this machine. They come and go. The caller holds mu.
func (o *ownAddresses) machine() []netip.Addr {
	if !o.readAt.IsZero() && time.Since(o.readAt) < ownEvery {
		return o.local
	}
	o.readAt = time.Now()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return o.local // what was known last
	}
	o.local = o.local[:0:0]
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				o.local = append(o.local, addr.Unmap())
			}
		}
	}
	return o.local
}

// OwnAddresses are the addresses at which the gateway can be reached from this machine:
// no endpoint may be there.
func (g *Gateway) OwnAddresses() []netip.AddrPort { return g.own.list() }

// OwnPort tells the gateway of another port of the same process, where no endpoint may be
// either: the one of operators.
func (g *Gateway) OwnPort(at net.Addr) { g.own.add(at) }
