package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// packetBytes is the size of a packet of gossip, which fits any network.
	packetBytes = 1400
	// dialTimeout bounds the wait for a peer to take a stream; memberlist's own is for
	// all of it.
	dialTimeout = 5 * time.Second
	// streamTimeout bounds a stream that this node has opened.
	streamTimeout = 20 * time.Second
	// endTimeout bounds the wait for the streams of a session that has ended.
	endTimeout = 5 * time.Second
	// retransmits is how often a node passes on a piece of news, for each decimal digit of
	// the number of nodes. With memberlist's 4, one joining of fifty leaves somebody of 10
	// nodes without word of it.
	retransmits = 6
	// suspicion and suspicionMost are how many probes pass, for each decimal digit of the
	// number of nodes, until who does not answer is dead, when others say so too and when
	// nobody does (that many times longer). With memberlist's 4 and 6, one crash of a
	// hundred at 10 nodes is not known to all within 10 s.
	suspicion, suspicionMost = 3, 4
	// reclaim is how long a node must be dead before its name may be at another address.
	reclaim = time.Millisecond
)

// session is one life of this node among its peers, from joining until leaving: one
// memberlist, and the transport that it has. A memberlist that has left is of no use any
// more, while the sockets stay.
type session struct {
	m     *membership
	life  string
	list  *memberlist.Memberlist // set before anybody but its delegates sees the session
	at    netip.AddrPort         // where peers reach this node
	byes  *memberlist.TransmitLimitedQueue
	ctx   context.Context // done when it has ended
	end   context.CancelFunc
	tasks sync.WaitGroup // joins, and what is sent by streams

	packets chan *memberlist.Packet
	inbound chan net.Conn

	mu      sync.Mutex // guards the fields below
	ended   bool
	streams map[*stream]struct{}
	idle    chan struct{} // closed when it has ended and no stream is open
	senders map[string]*sender
}

// startSession makes this node one that can be joined, and joins nobody.
func startSession(m *membership, life string) (*session, error) {
	ctx, end := context.WithCancel(context.Background())
	s := &session{
		m: m, life: life, ctx: ctx, end: end,
		packets: make(chan *memberlist.Packet), inbound: make(chan net.Conn),
		streams: map[*stream]struct{}{}, idle: make(chan struct{}), senders: map[string]*sender{},
	}
	s.byes = &memberlist.TransmitLimitedQueue{RetransmitMult: retransmits, NumNodes: func() int { return len(m.Live()) + 1 }}
	ip, port, err := m.base.FinalAdvertiseAddr("", 0)
	if err != nil {
		end()
		return nil, err
	}
	addr, _ := netip.AddrFromSlice(ip)
	s.at = netip.AddrPortFrom(addr.Unmap(), uint16(port))
	if s.list, err = memberlist.Create(s.config()); err != nil {
		end()
		return nil, fmt.Errorf("begin to gossip: %w", err)
	}
	return s, nil
}

// config is memberlist's for a local network, but for what differs.
func (s *session) config() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name, c.RequireNodeNames = s.m.self, true
	c.Transport, c.Label = s, s.m.label()
	c.BindPort, c.AdvertisePort = int(s.at.Port()), int(s.at.Port())
	c.AdvertiseAddr = s.at.Addr().String()
	c.RetransmitMult = retransmits
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = suspicion, suspicionMost
	c.EnableCompression = false
	c.UDPBufferSize = packetBytes
	c.DeadNodeReclaimTime = reclaim
	c.Keyring = s.m.keys.memberlist()
	c.Logger = slog.NewLogLogger(lineHandler{s.m.refusals}, slog.LevelWarn)
	d := &delegate{s}
	c.Delegate, c.Events, c.Alive, c.Merge, c.Conflict = d, d, d, d, d
	return c
}

// arrived hands a packet to memberlist.
func (s *session) arrived(p *memberlist.Packet) {
	select {
	case s.packets <- p:
	case <-s.ctx.Done():
	}
}

// accepted hands a stream to memberlist, which closes it.
func (s *session) accepted(conn net.Conn) {
	tracked := s.track(conn)
	if tracked == nil {
		conn.Close()
		return
	}
	select {
	case s.inbound <- tracked:
	case <-s.ctx.Done():
		tracked.Close()
	}
}

// FinalAdvertiseAddr is where peers reach this node.
func (s *session) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return s.at.Addr().AsSlice(), int(s.at.Port()), nil
}

// PacketCh has the packets of peers.
func (s *session) PacketCh() <-chan *memberlist.Packet { return s.packets }

// StreamCh has the streams that peers have opened.
func (s *session) StreamCh() <-chan net.Conn { return s.inbound }

// WriteTo sends a packet.
func (s *session) WriteTo(b []byte, address string) (time.Time, error) {
	return s.WriteToAddress(b, memberlist.Address{Addr: address})
}

// WriteToAddress sends a packet.
func (s *session) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if s.ctx.Err() != nil {
		return time.Time{}, net.ErrClosed
	}
	s.m.traffic.packetsOut.Add(uint64(len(b)))
	return s.m.base.WriteToAddress(b, to)
}

// DialTimeout opens a stream.
func (s *session) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return s.DialAddressTimeout(memberlist.Address{Addr: address}, timeout)
}

// DialAddressTimeout opens a stream, which ends with the session.
func (s *session) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := s.dial(to, min(timeout, dialTimeout))
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(streamTimeout)); err != nil {
		conn.Close()
		return nil, err
	}
	if tracked := s.track(conn); tracked != nil {
		return tracked, nil
	}
	conn.Close()
	return nil, net.ErrClosed
}

func (s *session) dial(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if s.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	if own, is := s.m.base.(*sockets); is {
		ctx, cancel := context.WithTimeout(s.ctx, timeout)
		defer cancel()
		return own.dial(ctx, to.Addr)
	}
	return s.m.base.DialAddressTimeout(to, timeout)
}

// Shutdown ends all streams, and has nothing arrive any more. memberlist calls it.
func (s *session) Shutdown() error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil
	}
	s.ended = true
	open := make([]*stream, 0, len(s.streams))
	for c := range s.streams {
		open = append(open, c)
	}
	if len(open) == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	s.end()
	for _, c := range open {
		c.Conn.Close() // whoever uses it finds out, and closes the stream
	}
	return nil
}

// stop ends the session without a goodbye, and returns when what it has begun has ended.
func (s *session) stop() {
	_ = s.list.Shutdown() // only of the transport, which never fails
	s.tasks.Wait()
	select {
	case <-s.idle:
	case <-time.After(endTimeout):
	}
}

// leave says goodbye, and waits a while until it was sent often enough, or nobody is
// there any more. Its process ends, or goes on alone.
func (s *session) leave(ends bool, patience time.Duration) {
	_ = s.list.Leave(time.Millisecond) // says so from now on; its own wait has no other end
	sent := s.sayGoodbye(ends)
	over := time.After(patience)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for !s.m.alone() {
		select {
		case <-sent:
			return
		case <-ticker.C:
		case <-over:
			s.m.log.Info("the goodbye may not have been heard by all; they find out by themselves")
			return
		}
	}
}

// join exchanges who is there with the node at an address.
func (s *session) join(address netip.AddrPort) error {
	// memberlist wants a name; whoever is there answers to any.
	_, err := s.list.Join([]string{"peer/" + address.String()})
	return err
}

// begin runs a task that the session waits for, unless it has ended.
func (s *session) begin(task func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.tasks.Go(task)
	return true
}

// joinAll tries addresses at the same time until ctx is done, and tells who answered, and
// why the others did not.
func (s *session) joinAll(ctx context.Context, addresses []netip.AddrPort) (answered int, err error) {
	type answer struct {
		at  netip.AddrPort
		err error
	}
	answers := make(chan answer, len(addresses))
	room := make(chan struct{}, 8)
	for _, at := range addresses {
		begun := s.begin(func() {
			select {
			case room <- struct{}{}:
				defer func() { <-room }()
				answers <- answer{at, s.join(at)}
			case <-s.ctx.Done():
				answers <- answer{at, net.ErrClosed}
			}
		})
		if !begun {
			answers <- answer{at, net.ErrClosed}
		}
	}
	var failed []error
	for range addresses {
		select {
		case a := <-answers:
			if a.err == nil {
				answered++
			} else {
				failed = append(failed, fmt.Errorf("%s: %s", a.at, explainJoin(a.err)))
			}
		case <-ctx.Done():
			return answered, ctx.Err()
		}
	}
	return answered, errors.Join(failed...)
}

// explainJoin is in few words why a peer was not joined.
func explainJoin(err error) string {
	text := err.Error()
	for _, known := range []struct{ text, meaning string }{
		{"no installed keys", "it has another key (gossip-key-file)"},
		{"encryption is configured but remote state is not encrypted", "it has no key, and this node has one (gossip-key-file)"},
		{"remote state is encrypted and encryption is not configured", "it has a key, and this node has none (gossip-key-file)"},
		{"connection refused", "nothing listens there"},
		{"EOF", "it hung up: it has another gossip-label, has left its cluster, or the port is not the one of its gossip"},
		{"reset by peer", "it hung up: it has another gossip-label, has left its cluster, or the port is not the one of its gossip"},
		{"no route to host", "no route to it, or its machine is down"},
		{"network is unreachable", "no route to its network"},
		{"i/o timeout", "no answer"},
		{"deadline", "no answer"},
	} {
		if strings.Contains(text, known.text) {
			return known.meaning
		}
	}
	lines := strings.Split(strings.TrimSpace(text), "\n") // memberlist's lists take several
	last := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines[len(lines)-1]), "*"))
	return last[:min(len(last), maxRefusalLine)]
}

// packetRoom is the most bytes of a message that fits a packet, whoever it goes to.
func packetRoom(label string) int {
	const (
		encryption = 29 // version, nonce, tag
		checksum   = 5
		compound   = 2 + 2 // of a packet with several messages, and of each of them
		user       = 1
	)
	return packetBytes - encryption - checksum - compound - user - 2 - len(label)
}
