package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hashicorp/memberlist"
)

const (
	// defaultPort is the port of gossip where none is said, UDP and TCP.
	defaultPort  = 7946
	defaultLabel = "sluice"

	// maxJoin bounds the addresses that are configured to join.
	maxJoin = 100
)

// Config is how a node takes part. Validate tells what is wrong with it.
type Config struct {
	// Bind is the address of gossip, host:port, UDP and TCP. A missing port means 7946,
	// port 0 any free one.
	Bind string
	// Advertise is where peers reach this node: an IP address, with or without a port.
	// Empty means that it is found out.
	Advertise string
	// Join are addresses of peers, host[:port]. Names are looked up anew while the node is
	// alone.
	Join []string
	// KeyFile has the keys that encrypt gossip, one in a line, the first is used to send.
	// Empty means no key, which is for loopback only.
	KeyFile string
	// Insecure leaves loopback without a key.
	Insecure bool
	// Label keeps clusters apart that could reach each other; empty means "sluice".
	Label string

	// What peers are told of this node: its host name, its version, its ports.
	Host, Version, Listen, Admin string
}

// Validate tells everything that is wrong, without looking at the machine.
func (c Config) Validate() error {
	var faults []error
	bind, err := parseBind(c.Bind)
	if err != nil {
		faults = append(faults, err)
	}
	advertise, err := parseAdvertise(c.Advertise)
	if err != nil {
		faults = append(faults, err)
	}
	if c.KeyFile == "" && !c.Insecure {
		faults = append(faults, needsKey("gossip", c.Bind, bind), needsKey("gossip-advertise", c.Advertise, advertise))
	}
	if len(c.Join) > maxJoin {
		faults = append(faults, fmt.Errorf("join: %d addresses, want at most %d; a name may stand for many", len(c.Join), maxJoin))
	}
	for _, peer := range c.Join {
		if _, _, err := splitPeer(peer); err != nil {
			faults = append(faults, fmt.Errorf("join %w", err))
		}
	}
	return errors.Join(append(faults, checkLabel(c.Label))...)
}

func checkLabel(label string) error {
	if len(label) > memberlist.LabelMaxSize || strings.ContainsFunc(label, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("gossip-label %q: want a word of at most %d printable characters", label, memberlist.LabelMaxSize)
	}
	return nil
}

// needsKey refuses an address that others than this machine reach: without a key, each of
// them could join, and change every route.
func needsKey(setting, value string, at netip.AddrPort) error {
	if !at.IsValid() || at.Addr().IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s %q: reached from beyond this machine, and there is no gossip-key-file: whoever reaches it could join and change every route; "+
		"make a key with sluice cluster keyring generate and give it to all nodes, stay at 127.0.0.1, or say gossip-insecure", setting, value)
}

// parseBind reads where to listen. No host means every address of the machine.
func parseBind(s string) (netip.AddrPort, error) {
	host, port, err := splitPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("gossip %q: %w", s, err)
	}
	switch strings.ToLower(host) {
	case "":
		return netip.AddrPortFrom(netip.IPv6Unspecified(), port), nil
	case "localhost":
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port), nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("gossip %q: want an IP address of this machine, and a port", s)
	}
	return netip.AddrPortFrom(addr.Unmap(), port), nil
}

// parseAdvertise reads where peers reach this node: port 0 for the one that is bound,
// and nothing at all for what is to be found out.
func parseAdvertise(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	at := netip.AddrPortFrom(addr.Unmap(), 0)
	if err != nil {
		at, err = netip.ParseAddrPort(s)
		at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	if err != nil || at.Addr().IsUnspecified() || at.Addr().IsMulticast() || at.Addr().Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("gossip-advertise %q: want one IP address, by which peers reach this node, or IP:port", s)
	}
	return at, nil
}

// splitPeer reads the address of a peer: a name or an IP address, and the port.
func splitPeer(s string) (host string, port uint16, err error) {
	host, port, err = splitPort(s)
	switch {
	case err != nil:
		return "", 0, fmt.Errorf("%q: %w", s, err)
	case host == "" || len(host) > 253 || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }):
		return "", 0, fmt.Errorf("%q: want a host, or host:port", s)
	case port == 0:
		return "", 0, fmt.Errorf("%q: want a port of 1 to 65535", s)
	}
	return host, port, nil
}

// splitPort reads host[:port]; a missing port is that of gossip.
func splitPort(s string) (host string, port uint16, err error) {
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return addr.String(), defaultPort, nil
	}
	if !strings.Contains(s, ":") {
		return s, defaultPort, nil
	}
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, errors.New("want host:port")
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, errors.New("want a port of 0 to 65535 after the colon")
	}
	return host, uint16(number), nil
}

// findAdvertise is where peers reach a node that is bound to an address and was not told:
// that address or, when it stands for all of the machine, the first private one.
func findAdvertise(bind netip.Addr, machine []netip.Addr, log *slog.Logger) (netip.Addr, error) {
	if !bind.IsUnspecified() {
		return bind, nil
	}
	var private, others []string
	var found netip.Addr
	for _, addr := range machine {
		addr = addr.Unmap()
		switch {
		case addr.IsLoopback() || addr.IsLinkLocalUnicast() || !addr.IsGlobalUnicast() || bind.Is4() && !addr.Is4():
		case !addr.IsPrivate():
			others = append(others, addr.String())
		default:
			private = append(private, addr.String())
			if !found.IsValid() || addr.Is4() && !found.Is4() {
				found = addr
			}
		}
	}
	if !found.IsValid() {
		return netip.Addr{}, fmt.Errorf("find the address by which peers reach this node: it is bound to all of them, and none is private (others: %s); say it with gossip-advertise",
			strings.Join(append(others, "none")[:max(len(others), 1)], ", "))
	}
	if len(private) > 1 {
		log.Info("several addresses could be the one that peers reach; gossip-advertise chooses", "advertised", found, "found", private)
	}
	return found, nil
}

// machineAddresses are those of the machine's interfaces, in their order.
func machineAddresses() ([]netip.Addr, error) {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	var addresses []netip.Addr
	for _, a := range found {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			addresses = append(addresses, prefix.Addr())
		}
	}
	return addresses, nil
}
