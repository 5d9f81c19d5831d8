package gateway

import (
	"net"
	"net/netip"
	"slices"
	"testing"
)

func TestOwnAddressesAreThoseOfThePort(t *testing.T) {
	var outer string // an address of this machine that is not loopback's
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			outer = n.IP.String()
		}
	}
	tests := []struct {
		listener, address string
		want              bool
	}{
		{"127.0.0.1:8080", "127.0.0.1:8080", true},
		{"127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", true},
		{"127.0.0.1:8080", "127.0.0.1:8081", false},
		{"127.0.0.1:8080", "127.0.0.2:8080", false},
		{"127.0.0.1:8080", outer + ":8080", false},
		{"0.0.0.0:8080", "127.0.0.1:8080", true},
		{"0.0.0.0:8080", "127.9.9.9:8080", true},
		{"[::]:8080", "[::1]:8080", true},
		{"[::]:8080", "127.0.0.2:8080", true},
		{"[::]:8080", outer + ":8080", true},
		{"[::]:8080", outer + ":8081", false},
		{"[::]:8080", "192.0.2.1:8080", false},
	}
	for _, test := range tests {
		at, err := netip.ParseAddrPort(test.address)
		if err != nil {
			continue // this machine has no other address
		}
		own := newOwnAddresses(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(test.listener)))
		if got := own.has(at); got != test.want {
			t.Errorf("a port at %s: %s is its own: %v, want %v", test.listener, test.address, got, test.want)
		}
		// Of a port everywhere, loopback is a whole network: the list has those that there are.
		if listed := slices.Contains(own.list(), at); listed && !test.want {
			t.Errorf("a port at %s: %s is listed as its own", test.listener, test.address)
		}
	}
	if got := newOwnAddresses(&net.UnixAddr{Name: "x"}); got.has(netip.MustParseAddrPort("127.0.0.1:1")) || got.list() != nil {
		t.Error("a port that is none has addresses")
	}
}

// The port of operators is the gateway's own as well, and each is known by its own address.
func TestOwnAddressesAreThoseOfAllPorts(t *testing.T) {
	own := newOwnAddresses(net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[::]:8080")))
	own.add(net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:8081")))
	own.add(&net.UnixAddr{Name: "x"})
	for address, want := range map[string]bool{
		"127.0.0.1:8081": true, "127.0.0.1:8080": true, "[::1]:8080": true,
		"[::1]:8081": false, "127.0.0.2:8081": false, "127.0.0.1:8082": false,
	} {
		if got := own.has(netip.MustParseAddrPort(address)); got != want {
			t.Errorf("%s is its own: %v, want %v", address, got, want)
		}
	}
	if list := own.list(); !slices.Contains(list, netip.MustParseAddrPort("127.0.0.1:8081")) || !slices.Contains(list, netip.MustParseAddrPort("[::]:8080")) {
		t.Errorf("listed are %v", list)
	}
}
