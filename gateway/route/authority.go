package route

import (
	"crypto/sha256"
	"io"
	"slices"
	"strings"

	"sluice/store"
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

// Leads tells whether a rule of the route of that key matches a method, whatever
// metadata it asks for besides.
func (t *Table) Leads(route, path string) bool {
	q := newQuery(path, nil)
	for _, c := range t.routes {
		if c.key != route {
			continue
		}
		for _, m := range c.matches {
			if m.service.admits(q.service) && m.method.admits(q.method) {
				return true
			}
		}
	}
	return false
}

// admits compares a part of a path.
func (s segment) admits(text string) bool {
	switch {
	case s.text == "":
		return true
	case s.pattern != nil:
		return s.pattern.MatchString(text)
	}
	return s.text == text
}

// Exposing are the rules that serve an authority and may be described to callers in the
// way that which asks for, in the order of the set.
func (t *Table) Exposing(authority string, which func(store.Expose) bool) (rules []*Rule) {
	if t.exposing == 0 {
		return nil
	}
	var buf [maxHostname]byte
	host := string(hostOf(&buf, authority))
	for _, c := range t.routes {
		if !c.exposing || !serves(c.source.Spec.Hostnames, host) {
			continue
		}
		for _, rule := range c.rules {
			if which(rule.Treatment.Expose) {
				rules = append(rules, rule)
			}
		}
	}
	return rules
}

// Exposes tells whether some route may be described to callers.
func (t *Table) Exposes() bool { return t.exposing > 0 }

// Served is a digest of the routes that serve an authority: two authorities with the
// same one lead to the same places.
func (t *Table) Served(authority string) [sha256.Size]byte {
	var buf [maxHostname]byte
	host := string(hostOf(&buf, authority))
	h := sha256.New()
	for _, c := range t.routes {
		if serves(c.source.Spec.Hostnames, host) {
			io.WriteString(h, c.key+"\n")
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}
