package store

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// isOwn tells whether an address leads to the gateway itself, as far as can be told
// without asking anybody.
func (l *Leases) isOwn(address string) bool {
	if l.opts.OwnAddresses == nil {
		return false
	}
	var at []netip.AddrPort
	if parsed, err := netip.ParseAddrPort(address); err == nil {
		at = append(at, netip.AddrPortFrom(plain(parsed.Addr()), parsed.Port()))
	} else if host, port, err := net.SplitHostPort(address); err == nil && isLoopbackName(host) {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return false
		}
		at = append(at, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(n)), netip.AddrPortFrom(netip.IPv6Loopback(), uint16(n)))
	}
	for _, own := range l.opts.OwnAddresses() {
		here := plain(own.Addr())
		for _, at := range at {
			same := at.Addr() == here || here.IsUnspecified() && at.Addr().IsLoopback()
			if same && at.Port() == own.Port() {
				return true
			}
		}
	}
	return false
}

// plain is an address by which two of one machine can be compared.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// isLoopbackName tells whether a name means the machine itself wherever it is looked up:
// RFC 6761, section 6.3, and what hosts files have for IPv6.
func isLoopbackName(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || host == "ip6-localhost" || host == "ip6-loopback"
}
