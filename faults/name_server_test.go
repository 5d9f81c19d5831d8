package faults

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers questions for A records, and lies when it is told to.
type nameServer struct {
	conn net.PacketConn
	done chan struct{}

	mu      sync.Mutex
	says    []answer // in turn
	asked   int
	waiting map[string]bool // names asked for
}

// answer is what it says to a question.
type answer struct {
	code      dnsmessage.RCode
	addresses []string
	silent    bool // nothing at all
	wrongID   bool // an answer to a question that nobody asked
}

func startNameServer(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", newAddress())
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn, done: make(chan struct{}), waiting: map[string]bool{}}
	go func() {
		defer close(s.done)
		s.serve(t)
	}()
	t.Cleanup(func() {
		conn.Close()
		<-s.done
	})
	return s
}

func (s *nameServer) address() string { return s.conn.LocalAddr().String() }

// say sets what is answered from now on: these, in turn.
func (s *nameServer) say(answers ...answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.says = answers
}

func (s *nameServer) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *nameServer) serve(t *testing.T) {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // a reset of an earlier answer's receiver
		}
		reply, err := s.reply(buf[:n])
		if err != nil {
			t.Errorf("name server: %v", err)
			return
		}
		if reply != nil {
			_, _ = s.conn.WriteTo(reply, from) // whoever asked may be gone
		}
	}
}

func (s *nameServer) reply(question []byte) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(question)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	says := s.next(q.Type == dnsmessage.TypeA)
	if says.silent {
		return nil, nil
	}
	if says.wrongID {
		header.ID++
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, RCode: says.code, RecursionDesired: header.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	for _, address := range says.addresses {
		if q.Type != dnsmessage.TypeA {
			break
		}
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 1},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(address).As4()},
		})
	}
	return m.Pack()
}

// next is the answer to the next question; those for addresses of IPv6 get the same
// one without its turn being over.
func (s *nameServer) next(turn bool) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.says) == 0 {
		return answer{code: dnsmessage.RCodeServerFailure}
	}
	says := s.says[0]
	if turn {
		s.asked++
		s.says = append(slices.Clone(s.says[1:]), says)
	}
	return says
}

// hosts are the addresses of backends without their port.
func hosts(t *testing.T, backends ...*backend) []string {
	t.Helper()
	var all []string
	for _, b := range backends {
		host, _, err := net.SplitHostPort(b.address())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, host)
	}
	return all
}

func TestNameThatFlapsIsNotNoticed(t *testing.T) {
	longOnly(t)
	rate := fullRate(t)
	s := begin(t, "three addresses of one name come and go; then NXDOMAIN, silence, nothing, SERVFAIL, wrong answers, flapping")
	backends := startBackends(t, 3, "b")
	_, port, err := net.SplitHostPort(backends[0].address()) // that of all addresses
	if err != nil {
		t.Fatal(err)
	}
	server := startNameServer(t)
	all3 := hosts(t, backends...)
	server.say(answer{addresses: all3[:2]})
	g := startGateway(t)
	g.apply(manifest("", "dns: {name: shop.test, port: "+port+", refresh: 1s, server: \""+server.address()+"\"}", ""))
	r := load{rate: 1, conns: 1}.begin(t, g)
	r.awaitRPC("b1", 0, patience)
	r.stop()

	r = load{rate: rate}.begin(t, g)
	wait(time.Second)
	server.say(answer{addresses: all3})
	added := r.now()
	joined := r.awaitRPC("b3", added, patience) - added
	server.say(answer{addresses: all3[1:]})
	wait(3 * time.Second)
	before := backends[0].report().Begun
	wait(500 * time.Millisecond)
	stale := backends[0].report().Begun - before
	for _, says := range [][]answer{
		{{code: dnsmessage.RCodeNameError}},
		{{silent: true}},
		{{}},
		{{code: dnsmessage.RCodeServerFailure}},
		{{addresses: all3[:1], wrongID: true}},
		{{addresses: all3[:1]}, {addresses: all3[1:2]}, {addresses: all3[2:]}},
	} {
		server.say(says...)
		wait(3 * time.Second)
	}
	seen := r.stop()
	s.noneFailed(seen)
	s.want(joined < 3*time.Second, "a new address within 3 s", "a new address had RPCs after %s", ms(joined))
	s.want(stale == 0, "an old one none after 3 s", "an old one %d RPCs after 3 s", stale)
	s.note("%d questions", server.questions())
}
