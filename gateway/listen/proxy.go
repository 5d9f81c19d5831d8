package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// errProxyHeader is what every fault of a PROXY header wraps.
var errProxyHeader = errors.New("PROXY header is missing or wrong")

// proxyAddrs are the two ends of the connection that a proxy relays. They are
// invalid where it names none: the socket's own are then meant.
type proxyAddrs struct {
	source, destination netip.AddrPort
}

// The two beginnings of a PROXY header, by version.
var (
	proxyV1 = []byte("PROXY ")
	proxyV2 = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// proxyV1Length is the longest header of version 1, its line end included.
const proxyV1Length = 107

// parseProxyHeader parses the PROXY header that b begins with and returns its
// size. A size of zero without an error means that b is the beginning of one.
// Of version 2, maxLength bytes may follow the first 16.
//
// The protocol is HAProxy's (doc/proxy-protocol.txt, sections 2.1 and 2.2).
func parseProxyHeader(b []byte, maxLength int) (addrs proxyAddrs, size int, err error) {
	switch {
	case hasBeginning(b, proxyV1):
		return parseProxyV1(b)
	case hasBeginning(b, proxyV2):
		return parseProxyV2(b, maxLength)
	default:
		return proxyAddrs{}, 0, fmt.Errorf("%w: none", errProxyHeader)
	}
}

// hasBeginning reports whether b, as far as it goes, is the beginning of
// something that begins with sig.
func hasBeginning(b, sig []byte) bool {
	n := min(len(b), len(sig))
	return bytes.Equal(b[:n], sig[:n])
}

// parseProxyV1 parses a line such as
// "PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n".
func parseProxyV1(b []byte) (addrs proxyAddrs, size int, err error) {
	end := bytes.IndexByte(b[:min(len(b), proxyV1Length)], '\n')
	if end < 0 {
		if len(b) >= proxyV1Length {
			return addrs, 0, fmt.Errorf("%w: line of more than %d bytes", errProxyHeader, proxyV1Length)
		}
		return addrs, 0, nil
	}
	line, ok := strings.CutSuffix(string(b[:end]), "\r")
	if !ok {
		return addrs, 0, fmt.Errorf("%w: line does not end in CR LF", errProxyHeader)
	}
	fields := strings.Split(line, " ")
	if fields[1] == "UNKNOWN" { // "the receiver must ignore anything presented before the CRLF"
		return addrs, end + 1, nil
	}
	if len(fields) != 6 {
		return addrs, 0, fmt.Errorf("%w: %d fields, want 6", errProxyHeader, len(fields))
	}
	if addrs.source, err = parseProxyV1Addr(fields[1], fields[2], fields[4]); err != nil {
		return proxyAddrs{}, 0, err
	}
	if addrs.destination, err = parseProxyV1Addr(fields[1], fields[3], fields[5]); err != nil {
		return proxyAddrs{}, 0, err
	}
	return addrs, end + 1, nil
}

// parseProxyV1Addr parses an address of the named family, and a port.
func parseProxyV1Addr(family, host, port string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" || !(family == "TCP4" && addr.Is4() || family == "TCP6" && addr.Is6()) {
		return netip.AddrPort{}, fmt.Errorf("%w: address %q of family %q", errProxyHeader, host, family)
	}
	number, ok := parsePort(port)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%w: port %q", errProxyHeader, port)
	}
	return netip.AddrPortFrom(addr.Unmap(), number), nil
}

// parsePort parses a decimal number of at most 65535, without leading zeros.
func parsePort(s string) (uint16, bool) {
	if s == "" || len(s) > 5 || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return uint16(n), n <= 65535
}

// Fields of version 2.
const (
	proxyV2Fixed = 16 // signature, version and command, family and protocol, length

	proxyV2Local = 0x20 // version 2, command LOCAL: the proxy's own connection, a health check
	proxyV2Proxy = 0x21 // version 2, command PROXY

	proxyV2TCP4 = 0x11
	proxyV2TCP6 = 0x21
)

// proxyV2Lengths is what the addresses of each family take, by its number.
var proxyV2Lengths = [...]int{0: 0, 1: 12, 2: 36, 3: 216}

// parseProxyV2 parses the binary form.
func parseProxyV2(b []byte, maxLength int) (addrs proxyAddrs, size int, err error) {
	if len(b) < proxyV2Fixed {
		return addrs, 0, nil
	}
	command, family := b[12], b[13]
	if command != proxyV2Local && command != proxyV2Proxy {
		return addrs, 0, fmt.Errorf("%w: version and command %#02x", errProxyHeader, command)
	}
	length := int(binary.BigEndian.Uint16(b[14:]))
	if length > maxLength {
		return addrs, 0, fmt.Errorf("%w: length of %d bytes, limit %d", errProxyHeader, length, maxLength)
	}
	if command == proxyV2Proxy {
		if err := checkProxyV2Family(family, length); err != nil {
			return addrs, 0, err
		}
	}
	size = proxyV2Fixed + length
	if len(b) < size {
		return addrs, 0, nil
	}
	if command == proxyV2Proxy {
		addrs = proxyV2Addrs(family, b[proxyV2Fixed:size])
	}
	return addrs, size, nil
}

// checkProxyV2Family refuses what is no family and protocol, and a length that
// the family's addresses do not fit in. "Other values are unspecified and must
// not be emitted ... and must be rejected as invalid by receivers."
func checkProxyV2Family(family byte, length int) error {
	number, protocol := int(family>>4), family&0xf
	if number >= len(proxyV2Lengths) || protocol > 2 {
		return fmt.Errorf("%w: family and protocol %#02x", errProxyHeader, family)
	}
	if length < proxyV2Lengths[number] {
		return fmt.Errorf("%w: length of %d bytes, family %#02x has %d", errProxyHeader, length, family, proxyV2Lengths[number])
	}
	return nil
}

// proxyV2Addrs returns the addresses of TCP. Of anything else (unspecified,
// datagrams, Unix sockets) the socket's own are used, as HAProxy does.
func proxyV2Addrs(family byte, b []byte) proxyAddrs {
	switch family {
	case proxyV2TCP4:
		return proxyAddrs{
			source:      netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[0:4])), binary.BigEndian.Uint16(b[8:])),
			destination: netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[10:])),
		}
	case proxyV2TCP6:
		return proxyAddrs{
			source:      netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[0:16])).Unmap(), binary.BigEndian.Uint16(b[32:])),
			destination: netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[16:32])).Unmap(), binary.BigEndian.Uint16(b[34:])),
		}
	default:
		return proxyAddrs{}
	}
}

// trustOf returns whose PROXY header is believed: that of peers within the
// prefixes, or everybody's where there are none.
func trustOf(prefixes []netip.Prefix) func(netip.Addr) bool {
	if len(prefixes) == 0 {
		return func(netip.Addr) bool { return true }
	}
	plain := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		plain[i] = unmappedPrefix(p)
	}
	return func(addr netip.Addr) bool {
		for _, p := range plain {
			if p.Contains(addr) {
				return true
			}
		}
		return false
	}
}

// unmappedPrefix returns a prefix of IPv4 addresses in IPv6 form as one of IPv4
// addresses: what it is compared with has that form.
func unmappedPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}
