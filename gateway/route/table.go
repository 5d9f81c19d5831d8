package route

import (
	"cmp"
	"fmt"
	"strings"
)

// Header is the metadata of a request. Names are asked for in lower case.
type Header interface {
	Get(name string) (value string, ok bool)
}

// Miss is why a lookup found no rule.
type Miss uint8

const (
	Found       Miss = iota // it did
	NoHostname              // no route serves the authority
	NoRule                  // some do, and none of their rules matches
	TwoReadings             // of HTTP alone: the path leads to different rules, depending on who reads it
)

// String ends a sentence about the RPC.
func (m Miss) String() string {
	switch m {
	case NoHostname:
		return "no route serves this authority"
	case NoRule:
		return "no rule of the routes that serve this authority matches"
	case TwoReadings:
		return "the path leads to different rules, depending on how a server reads it"
	}
	return "found"
}

// Table is all rules, by what they match. It does not change.
type Table struct {
	routes     []*compiled // in the order of the set
	patterns   patterns    // of all routes, and perhaps of some that are gone
	generation uint32      // tables before this one
	exposing   int         // routes that may be described to callers

	// In order of precedence.
	exact   level // hostnames in lower case
	wild    level // "*.example.com" as ".example.com"
	longest int   // bytes of the longest hostname of wild
	any     level // "" alone: routes without hostnames

	http httpTable // of HTTPRoutes, in the same way
}

// Rules are all rules, in the order of the set, those of HTTPRoutes last: a new list.
func (t *Table) Rules() []*Rule {
	var list []*Rule
	for _, c := range t.routes {
		list = append(list, c.rules...)
	}
	for _, c := range t.http.routes {
		list = append(list, c.rules...)
	}
	return list
}

// RulesOf are the rules of the GRPCRoute of that key, in their order.
func (t *Table) RulesOf(route string) []*Rule {
	for _, c := range t.routes {
		if c.key == route {
			return c.rules
		}
	}
	return nil
}

// Lookup finds the rule of highest precedence that matches an RPC, or says why
// none does. The authority's port and the case of its letters do not matter. A
// path that is no "/service/method" meets only matches that ask for neither.
func (t *Table) Lookup(authority, path string, hdr Header) (*Rule, Miss) {
	q := newQuery(path, hdr)
	miss := NoHostname
	if len(t.exact.hosts)+len(t.wild.hosts) > 0 {
		var buf [maxHostname]byte
		host := hostOf(&buf, authority)
		r, served := t.exact.find(host, &q)
		if r != nil {
			return r, Found
		}
		if served {
			miss = NoRule
		}
		for dot := 1; dot < len(host); dot++ {
			// The first label that a wildcard stands for is not empty.
			if host[dot] != '.' || len(host)-dot > t.longest || t.wild.hosts[string(host[dot:])] == nil {
				continue
			}
			if r, _ := t.wild.find(host[dot:], &q); r != nil {
				return r, Found
			}
			miss = NoRule
		}
	}
	r, served := t.any.find(nil, &q)
	switch {
	case r != nil:
		miss = Found
	case served:
		miss = NoRule
	}
	return r, miss
}

// String has a line for each match of each hostname, in order of precedence: the
// hostname, what is matched, the rule and its shares. HTTPRoutes come last.
func (t *Table) String() string {
	var b strings.Builder
	for _, h := range t.hosts(nil) {
		for _, m := range h.matches {
			fmt.Fprintf(&b, "%s %s -> %s\n", cmp.Or(h.hostname, "*"), m, m.rule)
		}
	}
	t.http.write(&b)
	return b.String()
}

// query is what an RPC is looked up by. The texts are parts of its path, and empty
// when that is not gRPC's.
type query struct {
	service, method string
	texts           [numKinds]string
	hashes          [numKinds]uint64 // of texts; 0 until it is asked for
	hdr             Header
}

func newQuery(path string, hdr Header) query {
	q := query{hdr: hdr}
	rest, ok := strings.CutPrefix(path, "/")
	slash := strings.IndexByte(rest, '/')
	if !ok || slash <= 0 || slash == len(rest)-1 || strings.IndexByte(rest[slash+1:], '/') >= 0 {
		return q
	}
	q.service, q.method = rest[:slash], rest[slash+1:]
	q.texts = [numKinds]string{byPath: path, byService: path[:slash+2], byMethod: rest[slash:]}
	return q
}

// maxHostname is DNS's limit, in bytes; what is longer no hostname matches.
const maxHostname = 253

// hostOf writes the authority's host into buf: without the port, without the dot
// of a fully qualified name, in lower case. It is empty when there is none that a
// hostname could match.
func hostOf(buf *[maxHostname]byte, authority string) []byte {
	host := authority
	if colon := strings.LastIndexByte(host, ':'); colon >= 0 && isPort(host[colon+1:]) {
		host = host[:colon]
	}
	host = strings.TrimSuffix(host, ".")
	if len(host) > len(buf) {
		return nil
	}
	for i := range len(host) {
		c := host[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	return buf[:len(host)]
}

// isPort allows the empty port, as RFC 3986, section 3.2.3 does.
func isPort(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
