package admin

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

// hostNames are the names by which the door may be called. A page of somebody else
// whose name is made to point to this machine (DNS rebinding) calls it by that name,
// and is not let in. Addresses need no list: they are nobody's name.
type hostNames map[string]bool

func newHostNames(names []string) hostNames {
	hosts := hostNames{"localhost": true}
	if machine, err := os.Hostname(); err == nil {
		hosts[plainHost(machine)] = true
	}
	for _, name := range names {
		hosts[plainHost(name)] = true
	}
	return hosts
}

// check tells why a request for that host is not answered, or nil. A request without
// one comes from no browser.
func (h hostNames) check(host string) error {
	name := host
	if split, _, err := net.SplitHostPort(host); err == nil {
		name = split
	}
	name = plainHost(name)
	if name == "" && host == "" || h[name] || strings.HasSuffix(name, ".localhost") {
		return nil
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return nil
	}
	return fmt.Errorf("%s is not a name of this node; if it should be, start it with --admin-hosts", quoted(name))
}

// plainHost is a name as it is compared.
func plainHost(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
