package upstream

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// record is a type of DNS records that is asked for.
type record uint16

const (
	recordA    = record(dns.TypeA)
	recordAAAA = record(dns.TypeAAAA)
	recordSRV  = record(dns.TypeSRV)
)

func (r record) String() string { return dns.Type(r).String() }

// question is what a name server is asked. The name is complete, with its last dot.
type question struct {
	name string
	kind record
}

// reply is what a name server says to one question.
type reply struct {
	addresses []netip.Addr
	services  []service
	keep      time.Duration // as long as the records live, those of aliases included
	alias     string        // that has to be asked about next, when there are no records; else ""
	aliases   int           // that were followed within the reply
	truncated bool          // there is more of it, over TCP
	absent    bool          // there is no such name
}

// service is one SRV record.
type service struct {
	target           string
	port             uint16
	priority, weight uint16
}

// messages writes questions and reads replies. There is one way to do it, of the library
// that knows the format; nothing else here does.
type messages interface {
	write(id uint16, q question, extended bool) ([]byte, error)
	// read is errForeign for what is no reply to this question, and may well be somebody
	// else's doing, and another error for a server that cannot answer it.
	read(raw []byte, id uint16, q question) (reply, error)
}

var (
	errForeign = errors.New("no reply to this question")
	errFormat  = errors.New("the server does not understand the question")
	errAliases = fmt.Errorf("more than %d aliases, or a loop of them", maxAliases)
)

const (
	// maxAliases bounds the CNAME records between a name and its addresses.
	maxAliases = 8
	// maxUDP is how large a reply may be that comes in one packet, bytes: it fits every
	// link of the Internet unbroken.
	maxUDP = 1232
)

// miekg is messages by github.com/miekg/dns.
type miekg struct{}

func (miekg) write(id uint16, q question, extended bool) ([]byte, error) {
	m := new(dns.Msg)
	m.SetQuestion(q.name, uint16(q.kind))
	m.Id = id
	if extended {
		m.SetEdns0(maxUDP, false)
	}
	return m.Pack()
}

func (miekg) read(raw []byte, id uint16, q question) (reply, error) {
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil && !m.Truncated {
		return reply{}, errForeign
	}
	if m.Id != id || !m.Response || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 || !asks(&m.Question[0], q) {
		return reply{}, errForeign
	}
	switch m.Rcode {
	case dns.RcodeSuccess:
	case dns.RcodeNameError:
		return reply{absent: true}, nil
	case dns.RcodeFormatError, dns.RcodeNotImplemented:
		return reply{}, errFormat
	default:
		return reply{}, fmt.Errorf("the server answers %s", dns.RcodeToString[m.Rcode])
	}
	if m.Truncated {
		return reply{truncated: true}, nil
	}
	return followed(m.Answer, q)
}

func asks(got *dns.Question, want question) bool {
	return got.Qtype == uint16(want.kind) && got.Qclass == dns.ClassINET && sameName(got.Name, want.name)
}

func sameName(a, b string) bool { return strings.EqualFold(a, b) }

// followed takes what the records say of the name that was asked for, or of the one that
// it stands for. Records of other names are nobody's business.
func followed(records []dns.RR, q question) (reply, error) {
	r := reply{keep: maxKeep}
	aliases := make(map[string]*dns.CNAME)
	for _, rr := range records {
		if c, ok := rr.(*dns.CNAME); ok && c.Hdr.Class == dns.ClassINET {
			aliases[strings.ToLower(c.Hdr.Name)] = c
		}
	}
	name := strings.ToLower(q.name)
	for c := aliases[name]; c != nil; c = aliases[name] {
		if r.aliases++; r.aliases > maxAliases {
			return reply{}, errAliases
		}
		r.keep = min(r.keep, lifetime(c))
		name = strings.ToLower(c.Target)
	}
	some := false
	for _, rr := range records {
		h := rr.Header()
		if h.Class == dns.ClassINET && record(h.Rrtype) == q.kind && sameName(h.Name, name) && r.add(rr) {
			some = true
			r.keep = min(r.keep, lifetime(rr))
		}
	}
	if !some && r.aliases > 0 {
		r.alias = name
	}
	return r, nil
}

// add takes one record, and reports whether it says anything.
func (r *reply) add(rr dns.RR) bool {
	switch rr := rr.(type) {
	case *dns.A:
		return r.address(rr.A.To4())
	case *dns.AAAA:
		return r.address(rr.AAAA)
	case *dns.SRV:
		r.services = append(r.services, service{strings.ToLower(rr.Target), rr.Port, rr.Priority, rr.Weight})
		return true
	}
	return false
}

func (r *reply) address(ip []byte) bool {
	a, ok := netip.AddrFromSlice(ip)
	if ok {
		r.addresses = append(r.addresses, a.Unmap())
	}
	return ok
}

// lifetime of a record. One whose highest bit is set means none, RFC 2181 section 8.
func lifetime(rr dns.RR) time.Duration {
	ttl := rr.Header().Ttl
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

// complete is a name with its last dot, in the form that is asked for.
func complete(name string) (string, error) {
	if _, ok := dns.IsDomainName(name); !ok || name == "" {
		return "", fmt.Errorf("%q is no name", name)
	}
	return dns.Fqdn(strings.ToLower(name)), nil
}

// nameServers are those of a machine, and what it makes of short names.
type nameServers struct {
	servers []string // host:port
	config  *dns.ClientConfig
}

// readServers reads a text of the form of resolv.conf(5).
func readServers(text string) (nameServers, error) {
	c, err := dns.ClientConfigFromReader(strings.NewReader(text))
	if err != nil {
		return nameServers{}, err
	}
	n := nameServers{config: c}
	for _, s := range c.Servers {
		if a, err := netip.ParseAddr(s); err == nil && len(n.servers) < maxServers {
			n.servers = append(n.servers, netip.AddrPortFrom(a, 53).String())
		}
	}
	if len(n.servers) == 0 {
		return n, errors.New("no name server is named")
	}
	return n, nil
}

const (
	// maxServers are asked in turn, as resolv.conf(5) has it.
	maxServers = 3
	// maxSearched is how many names a short one may stand for.
	maxSearched = 8
)

// names are what a name may stand for, in the order in which they are asked for.
func (n *nameServers) names(name string) ([]string, error) {
	if n.config == nil {
		full, err := complete(name)
		return []string{full}, err
	}
	var list []string
	for _, candidate := range n.config.NameList(name) {
		if full, err := complete(candidate); err == nil && len(list) < maxSearched {
			list = append(list, full)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%q is no name", name)
	}
	return list, nil
}
