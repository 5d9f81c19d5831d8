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
	Found      Miss = iota // it did
	NoHostname             // no route serves the authority
	NoRule                 // some do, and none of their rules matches
)

// String ends a sentence about the RPC.
func (m Miss) String() string {
	switch m {
	case NoHostname:
		return "no route serves this authority"
	case NoRule:
		return "no rule of the routes that serve this authority matches"
	}
	return "found"
}

// Table is all rules, by what they match. It does not change.
type Table struct {
	rules     []*Rule
	hostnames map[string]*bucket // exact, in lower case
	wildcards map[string]*bucket // "*.example.com" as ".example.com"
	longest   int                // bytes of the longest key of wildcards
	any       *bucket            // of routes without hostnames; may be nil
	turns     map[string]*turn   // by Rule.identity
	hosts     []*hostMatches     // in order of precedence, to be printed
}

// Rules are all rules, in the order of the set.
func (t *Table) Rules() []*Rule { return t.rules }

// Lookup finds the rule of highest precedence that matches an RPC, or says why
// none does. The authority's port and the case of its letters do not matter. A
// path that is no "/service/method" meets only matches that ask for neither.
func (t *Table) Lookup(authority, path string, hdr Header) (*Rule, Miss) {
	q := query{path: path, hdr: hdr}
	q.service, q.method = cutPath(path)
	miss := NoHostname
	if len(t.hostnames)+len(t.wildcards) > 0 {
		var buf [maxHostname]byte
		host := hostOf(&buf, authority)
		if b := t.hostnames[string(host)]; b != nil {
			if r := b.find(&q); r != nil {
				return r, Found
			}
			miss = NoRule
		}
		for dot := 1; dot < len(host); dot++ {
			// The first label that a wildcard stands for is not empty.
			if host[dot] != '.' || len(host)-dot > t.longest {
				continue
			}
			if b := t.wildcards[string(host[dot:])]; b != nil {
				if r := b.find(&q); r != nil {
					return r, Found
				}
				miss = NoRule
			}
		}
	}
	if t.any != nil {
		if r := t.any.find(&q); r != nil {
			return r, Found
		}
		miss = NoRule
	}
	return nil, miss
}

// String has a line for each match of each hostname, in order of precedence: the
// hostname, what is matched, the rule and its shares.
func (t *Table) String() string {
	var b strings.Builder
	for _, h := range t.hosts {
		for _, m := range h.matches {
			fmt.Fprintf(&b, "%s %s -> %s\n", cmp.Or(h.hostname, "*"), m, m.rule)
		}
	}
	return b.String()
}

// query is what an RPC is looked up by.
type query struct {
	path            string
	service, method string // empty when the path is not gRPC's
	hdr             Header
}

// cutPath returns the two segments of the path, or nothing when it has not
// exactly two.
func cutPath(path string) (service, method string) {
	rest, ok := strings.CutPrefix(path, "/")
	slash := strings.IndexByte(rest, '/')
	if !ok || slash <= 0 || slash == len(rest)-1 || strings.IndexByte(rest[slash+1:], '/') >= 0 {
		return "", ""
	}
	return rest[:slash], rest[slash+1:]
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

// bucket is what the routes of one hostname match. The lists are in order of
// precedence, and so are the fields.
type bucket struct {
	paths           map[string][]candidate // service and method, as a path
	services        map[string][]candidate // every method of a service
	servicePatterns []candidate            // regular expressions for the service, and perhaps the method
	methods         map[string][]candidate // a method of any service
	methodPatterns  []candidate            // regular expressions for the method alone
	all             []candidate            // every service and method
}

// candidate is a match as a lookup meets it.
type candidate struct {
	rule *Rule
	more *match // what is to be compared yet; nil when nothing is
}

func (b *bucket) find(q *query) *Rule {
	if q.service != "" {
		if r := first(b.paths[q.path], q); r != nil {
			return r
		}
		if r := first(b.services[q.service], q); r != nil {
			return r
		}
		if r := first(b.servicePatterns, q); r != nil {
			return r
		}
		if r := first(b.methods[q.method], q); r != nil {
			return r
		}
		if r := first(b.methodPatterns, q); r != nil {
			return r
		}
	}
	return first(b.all, q)
}

func first(list []candidate, q *query) *Rule {
	for i := range list {
		if c := &list[i]; c.more == nil || c.more.matches(q) {
			return c.rule
		}
	}
	return nil
}
