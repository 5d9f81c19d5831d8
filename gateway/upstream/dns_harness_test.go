package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/store"
)

// nameServer answers on a port of loopback, over UDP and TCP, as the test wants it.
type nameServer struct {
	addr   string
	answer func(tcp bool, m *dns.Msg) []*dns.Msg // what goes back, none included

	mu    sync.Mutex // guards the fields below
	asked []string   // "A cart.test. udp"
}

// startNames runs a name server until the test ends.
func startNames(t testing.TB, answer func(tcp bool, m *dns.Msg) []*dns.Msg) *nameServer {
	t.Helper()
	var l net.Listener
	var pc net.PacketConn
	for { // the port that TCP has found may be taken for UDP
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if pc, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
			break
		}
		l.Close()
	}
	s := &nameServer{addr: l.Addr().String(), answer: answer}
	var work sync.WaitGroup
	work.Go(func() { s.serveUDP(pc) })
	work.Go(func() { s.serveTCP(l) })
	t.Cleanup(func() {
		l.Close()
		pc.Close()
		work.Wait()
	})
	return s
}

func (s *nameServer) serveUDP(pc net.PacketConn) {
	var in [4096]byte
	for {
		n, from, err := pc.ReadFrom(in[:])
		if err != nil {
			return
		}
		for _, out := range s.reply(false, in[:n]) {
			pc.WriteTo(out, from)
		}
	}
}

func (s *nameServer) serveTCP(l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		nc.SetDeadline(time.Now().Add(10 * time.Second))
		var length [2]byte
		if _, err := io.ReadFull(nc, length[:]); err == nil {
			in := make([]byte, binary.BigEndian.Uint16(length[:]))
			if _, err := io.ReadFull(nc, in); err == nil {
				for _, out := range s.reply(true, in) {
					nc.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
				}
			}
		}
		nc.Close()
	}
}

func (s *nameServer) reply(tcp bool, in []byte) (out [][]byte) {
	m := new(dns.Msg)
	if m.Unpack(in) != nil || len(m.Question) != 1 {
		return nil
	}
	over := " udp"
	if tcp {
		over = " tcp"
	}
	s.mu.Lock()
	s.asked = append(s.asked, dns.Type(m.Question[0].Qtype).String()+" "+m.Question[0].Name+over)
	s.mu.Unlock()
	for _, r := range s.answer(tcp, m) {
		if raw, err := r.Pack(); err == nil {
			out = append(out, raw)
		}
	}
	return out
}

// questions are what was asked, in order.
func (s *nameServer) questions() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.asked, ", ")
}

// zone are records, each a line of a zone file. A name that none is of does not exist.
type zone []dns.RR

func zoneOf(lines ...string) (z zone) {
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			panic(err)
		}
		z = append(z, rr)
	}
	return z
}

// reply answers from the zone. An alias is answered with, and not followed.
func (z zone) reply(m *dns.Msg) *dns.Msg {
	r := new(dns.Msg)
	r.SetReply(m)
	q, exists := m.Question[0], false
	for _, rr := range z {
		if !strings.EqualFold(rr.Header().Name, q.Name) {
			continue
		}
		exists = true
		if rr.Header().Rrtype == q.Qtype || rr.Header().Rrtype == dns.TypeCNAME {
			r.Answer = append(r.Answer, rr)
		}
	}
	if !exists {
		r.Rcode = dns.RcodeNameError
	}
	return r
}

// zoneMessage is what a server answers to a question that has the id 1.
func zoneMessage(q question, lines ...string) ([]byte, error) {
	m := new(dns.Msg)
	m.SetQuestion(q.name, uint16(q.kind))
	m.Id = 1
	r := zone{}.reply(m)
	r.Rcode, r.Answer = dns.RcodeSuccess, zoneOf(lines...)
	return r.Pack()
}

func (z zone) serve(_ bool, m *dns.Msg) []*dns.Msg { return []*dns.Msg{z.reply(m)} }

// impatient is a client that gives a server little time.
func impatient() *nameClient {
	c := newNameClient()
	c.patience = 100 * time.Millisecond
	return c
}

// lookUpAt asks one server for what a backend names.
func lookUpAt(t testing.TB, s *nameServer, d store.DNS, before ...found) (finding, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lookUpTimeout)
	defer cancel()
	d.Server = s.addr
	f, err := impatient().lookUp(ctx, &d, before)
	if err == nil {
		f.choose(store.DefaultMaxEndpoints, nobody)
	}
	return f, err
}

// resolverFunc answers for every name server.
type resolverFunc func(d *store.DNS, before []found) (finding, error)

func (f resolverFunc) lookUp(_ context.Context, d *store.DNS, before []found) (finding, error) {
	return f(d, before)
}

var errServfail = errors.New("the server answers SERVFAIL")
