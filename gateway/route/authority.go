package route

import (
	"slices"
	"strings"
)

// Backends are the backends that an RPC for this authority could reach, whatever its
// method, sorted. It looks at every route, and so is not for every request.
func (t *Table) Backends(authority string) []string {
	var buf [maxHostname]byte
	host := string(hostOf(&buf, authority))
	keys := make(map[string]bool)
	for _, c := range t.routes {
		if !serves(c.source.Spec.Hostnames, host) {
			continue
		}
		for _, rule := range c.rules {
			for i := range rule.Splits {
				keys[rule.Splits[i].Backend] = true
			}
		}
	}
	list := make([]string, 0, len(keys))
	for key := range keys {
		list = append(list, key)
	}
	slices.Sort(list)
	return list
}

// serves tells whether a route with these hostnames serves a host in lower case.
func serves(hostnames []string, host string) bool {
	if len(hostnames) == 0 {
		return true
	}
	for _, h := range hostnames {
		h = strings.ToLower(h)
		if suffix, wild := strings.CutPrefix(h, "*"); wild && len(host) > len(suffix) && strings.HasSuffix(host, suffix) || h == host {
			return true
		}
	}
	return false
}
