package gateway

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// ownAddresses are those at which the one port can be reached from this machine. An
// endpoint there would send RPCs round for ever.
type ownAddresses struct {
	at netip.AddrPort // of the listener; invalid when it has no port

	mu     sync.Mutex // guards the fields below
	local  []netip.Addr
	readAt time.Time
}

// ownEvery is how often the machine is asked for its addresses, at most.
const ownEvery = 10 * time.Second

func newOwnAddresses(listener net.Addr) *ownAddresses {
	o := &ownAddresses{}
	if a, ok := listener.(*net.TCPAddr); ok {
		at := a.AddrPort()
		o.at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return o
}

// has tells whether an address is one of them.
func (o *ownAddresses) has(a netip.AddrPort) bool {
	addr := a.Addr().Unmap().WithZone("")
	switch {
	case !o.at.IsValid() || a.Port() != o.at.Port():
		return false
	case !o.at.Addr().IsUnspecified():
		return addr == o.at.Addr().WithZone("")
	case addr.IsLoopback() || addr.IsUnspecified():
		return true
	}
	for _, local := range o.machine() {
		if addr == local {
			return true
		}
	}
	return false
}

// list is all of them, for those who have to tell them apart themselves.
func (o *ownAddresses) list() []netip.AddrPort {
	if !o.at.IsValid() {
		return nil
	}
	list := []netip.AddrPort{o.at}
	if !o.at.Addr().IsUnspecified() {
		return list
	}
	for _, local := range o.machine() {
		list = append(list, netip.AddrPortFrom(local, o.at.Port()))
	}
	return list
}

// machine are the addresses of this machine. They come and go.
func (o *ownAddresses) machine() []netip.Addr {
	o.mu.Lock()
	defer o.mu.Unlock()
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

// OwnAddresses are the addresses at which the one port can be reached from this machine:
// no endpoint may be there.
func (g *Gateway) OwnAddresses() []netip.AddrPort { return g.own.list() }
