package gateway

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"sluice/store"
)

// nameServer tells of one service, at the addresses that it was given last.
type nameServer struct {
	addr string

	mu      sync.Mutex // guards the fields below
	records []dns.RR
	rcode   int
}

// serviceName is what backends of DNS are looked up by.
const serviceName = "_grpc._tcp.shop.test"

// startNames runs a name server until the test ends.
func startNames(t testing.TB) *nameServer {
	t.Helper()
	pc, l := bothPorts(t)
	n := &nameServer{addr: pc.LocalAddr().String()}
	var work sync.WaitGroup
	t.Cleanup(work.Wait) // after the others
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: n}, {Listener: l, Handler: n}} {
		ready := make(chan struct{}) // to be shut down
		s.NotifyStartedFunc = func() { close(ready) }
		work.Go(func() { s.ActivateAndServe() })
		<-ready
		t.Cleanup(func() { s.Shutdown() })
	}
	return n
}

// bothPorts are one port of loopback, of UDP and of TCP.
func bothPorts(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 { // what is free of one kind may be taken of the other
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if l, err := net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			return pc, l
		}
		pc.Close()
	}
	t.Fatal("no port is free")
	return nil, nil
}

// say names addresses, each host:port of IPv4, as services with targets of their own.
func (n *nameServer) say(addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.records, n.rcode = nil, dns.RcodeSuccess
	for i, a := range addresses {
		host, port, _ := strings.Cut(a, ":")
		for _, line := range []string{
			fmt.Sprintf("%s. 0 IN SRV 0 1 %s t%d.shop.test.", serviceName, port, i),
			fmt.Sprintf("t%d.shop.test. 0 IN A %s", i, host),
		} {
			rr, err := dns.NewRR(line)
			if err != nil {
				panic(err)
			}
			n.records = append(n.records, rr)
		}
	}
}

// fail answers every question with an error.
func (n *nameServer) fail(rcode int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rcode = rcode
}

// ServeDNS implements dns.Handler.
func (n *nameServer) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	n.mu.Lock()
	r := new(dns.Msg)
	r.SetRcode(m, n.rcode)
	for _, rr := range n.records {
		if n.rcode == dns.RcodeSuccess && rr.Header().Rrtype == m.Question[0].Qtype && strings.EqualFold(rr.Header().Name, m.Question[0].Name) {
			r.Answer = append(r.Answer, rr)
		}
	}
	n.mu.Unlock()
	if w.RemoteAddr().Network() == "udp" {
		r.Truncate(dns.MinMsgSize)
	}
	w.WriteMsg(r)
}

// foundBy is a Backend whose endpoints a name server tells of.
func foundBy(name string, n *nameServer) string {
	return backendWith(name, fmt.Sprintf("dns: {srv: %s, server: %q, refresh: 1s}", serviceName, n.addr))
}

// hurried has names looked up every so often, which a text may not ask for.
func hurried(set *store.Set, refresh store.Duration) *store.Set {
	for i, b := range set.Backends {
		if b.Spec.DNS != nil {
			own, names := *b, *b.Spec.DNS
			names.Refresh = refresh
			own.Spec.DNS = &names
			set.Backends[i] = &own
		}
	}
	return set
}
