package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxStreams is how many streams of peers are open at once; strangers, whose address
	// is not that of a live member, have at most half of them. maxStreamsOfOne is what one
	// address has, or each member when several share it.
	maxStreams         = 128
	maxStreamsStranger = 64
	maxStreamsOfOne    = 16
	// maxStreamBytes is what is read of one stream: the largest message, and what is
	// around it. maxStreamsBytes is what is read of all that are open, maxStrangeBytes of
	// those of strangers: it is kept until the stream has shown whether it has the key.
	maxStreamBytes  = 20 << 20
	maxStreamsBytes = 64 << 20
	maxStrangeBytes = 24 << 20

	// maxPacketBytes is more than any node sends in a packet.
	maxPacketBytes = 8 << 10
	// readBuffer is what the kernel keeps of packets that nobody has read yet.
	readBuffer = 2 << 20

	// acceptRetry is the first pause when nothing can be accepted, such as when file
	// descriptors have run out; it doubles up to acceptRetryMost.
	acceptRetry     = 5 * time.Millisecond
	acceptRetryMost = time.Second
)

// watch is what the sockets ask and tell about who comes.
type watch interface {
	// livingAt is how many live members have that address.
	livingAt(from netip.Addr) int
	// refused says that somebody was turned away.
	refused(why reason, from string)
}

// sockets are the UDP socket and the TCP listener of gossip. What they hold is bounded
// before anything is known of who sends.
type sockets struct {
	udp   *net.UDPConn
	tcp   *net.TCPListener
	at    netip.AddrPort // where peers reach them
	watch watch

	packets chan *memberlist.Packet
	streams chan net.Conn
	closing chan struct{}
	wg      sync.WaitGroup // the two that listen

	mu   sync.Mutex // guards the fields below
	shut bool
	open map[*inbound]struct{}
	held streamCounts
}

// streamCounts is what the open streams take.
type streamCounts struct {
	strangers           int
	of                  map[netip.Addr]int
	bytes, strangeBytes int64
}

var _ memberlist.NodeAwareTransport = (*sockets)(nil)

// openSockets listens at an address. An advertised address without a port gets the one
// that is bound.
func openSockets(bind, advertise netip.AddrPort, w watch) (*sockets, error) {
	var tcp *net.TCPListener
	var udp *net.UDPConn
	var err error
	for range 10 { // a port that is free for TCP may not be for UDP
		if tcp, udp, err = listenBoth(bind); err == nil || bind.Port() != 0 {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	_ = udp.SetReadBuffer(readBuffer) // as much as the system grants
	if advertise.Port() == 0 {
		advertise = netip.AddrPortFrom(advertise.Addr(), tcp.Addr().(*net.TCPAddr).AddrPort().Port())
	}
	s := &sockets{
		udp: udp, tcp: tcp, at: advertise, watch: w,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), closing: make(chan struct{}),
		open: map[*inbound]struct{}{}, held: streamCounts{of: map[netip.Addr]int{}},
	}
	s.wg.Go(s.receive)
	s.wg.Go(s.accept)
	return s, nil
}

func listenBoth(bind netip.AddrPort) (*net.TCPListener, *net.UDPConn, error) {
	var ip net.IP // all of the machine
	if !bind.Addr().IsUnspecified() || bind.Addr().Is4() {
		ip = bind.Addr().AsSlice()
	}
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: ip, Port: int(bind.Port()), Zone: bind.Addr().Zone()})
	if err != nil {
		return nil, nil, fmt.Errorf("listen for gossip: %w", err)
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip, Port: tcp.Addr().(*net.TCPAddr).Port, Zone: bind.Addr().Zone()})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen for gossip: %w", err), tcp.Close())
	}
	return tcp, udp, nil
}

// FinalAdvertiseAddr is where peers reach this node, whatever memberlist thinks.
func (s *sockets) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return s.at.Addr().AsSlice(), int(s.at.Port()), nil
}

// PacketCh has what was received.
func (s *sockets) PacketCh() <-chan *memberlist.Packet { return s.packets }

// StreamCh has the streams that were accepted.
func (s *sockets) StreamCh() <-chan net.Conn { return s.streams }

// WriteTo sends a packet.
func (s *sockets) WriteTo(b []byte, address string) (time.Time, error) {
	return s.WriteToAddress(b, memberlist.Address{Addr: address})
}

// WriteToAddress sends a packet to an IP address.
func (s *sockets) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	at, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("send a packet: %w", err)
	}
	_, err = s.udp.WriteToUDPAddrPort(b, at)
	return time.Now(), err
}

// DialTimeout opens a stream.
func (s *sockets) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return s.DialAddressTimeout(memberlist.Address{Addr: address}, timeout)
}

// DialAddressTimeout opens a stream to an IP address.
func (s *sockets) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.dial(ctx, to.Addr)
}

func (s *sockets) dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// hears tells whether an address is one that these sockets are bound to.
func (s *sockets) hears(at netip.AddrPort) bool {
	bound := s.tcp.Addr().(*net.TCPAddr).AddrPort()
	if at.Port() != bound.Port() {
		return false
	}
	if !bound.Addr().IsUnspecified() {
		return at.Addr() == bound.Addr().Unmap()
	}
	machine, _ := machineAddresses()
	return slices.ContainsFunc(machine, func(own netip.Addr) bool { return own.Unmap() == at.Addr() })
}

// Shutdown closes everything and waits until nobody listens any more.
func (s *sockets) Shutdown() error {
	s.mu.Lock()
	if s.shut {
		s.mu.Unlock()
		return nil
	}
	s.shut = true
	close(s.closing)
	open := make([]*inbound, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	s.mu.Unlock()
	err := errors.Join(s.tcp.Close(), s.udp.Close())
	for _, c := range open {
		c.Close()
	}
	s.wg.Wait()
	return err
}

// receive hands on packets until the sockets are closed.
func (s *sockets) receive() {
	buf := make([]byte, maxPacketBytes+1)
	var pause time.Duration
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if pause = s.rest(pause); pause == 0 {
				return
			}
			continue
		}
		pause = 0
		if n == 0 || n > maxPacketBytes {
			s.watch.refused(tooLarge, from.Addr().Unmap().String())
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now()}
		select {
		case s.packets <- p:
		case <-s.closing:
			return
		}
	}
}

// rest waits longer each time, and returns zero when the sockets are closed.
func (s *sockets) rest(pause time.Duration) time.Duration {
	pause = min(max(2*pause, acceptRetry), acceptRetryMost)
	select {
	case <-s.closing:
		return 0
	case <-time.After(pause):
		return pause
	}
}

// accept hands on streams until the sockets are closed.
func (s *sockets) accept() {
	var pause time.Duration
	for {
		conn, err := s.tcp.AcceptTCP()
		if err != nil {
			if pause = s.rest(pause); pause == 0 {
				return
			}
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				s.watch.refused(noDescriptors, "")
			}
			continue
		}
		pause = 0
		c, why := s.admit(conn)
		if c == nil {
			conn.Close()
			s.watch.refused(why, conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String())
			continue
		}
		select {
		case s.streams <- c:
		case <-s.closing:
			c.Close()
			return
		}
	}
}

// admit counts a stream that has room, and says why there is none.
func (s *sockets) admit(conn *net.TCPConn) (*inbound, reason) {
	from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	living := s.watch.livingAt(from)
	c := &inbound{Conn: conn, s: s, from: from, stranger: living == 0}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.held.of[from] >= maxStreamsOfOne*max(living, 1):
		return nil, tooManyOfOne
	case len(s.open) >= maxStreams, c.stranger && s.held.strangers >= maxStreamsStranger, s.shut:
		return nil, tooMany
	}
	s.open[c] = struct{}{}
	s.held.of[from]++
	if c.stranger {
		s.held.strangers++
	}
	return c, ""
}

// inbound is a stream that somebody has opened.
type inbound struct {
	net.Conn
	s        *sockets
	from     netip.Addr
	stranger bool
	read     int64 // under the sockets' mu
	closed   atomic.Bool
}

// Read refuses more than a message has, and more than all streams together may hold.
func (c *inbound) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.s.hold(c, int64(n)) {
		c.s.watch.refused(tooLarge, c.from.String())
		c.Close()
		return 0, errors.New("more than streams may hold")
	}
	return n, err
}

// Close gives back what the stream held.
func (c *inbound) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.s.release(c)
	return c.Conn.Close()
}

// hold tells whether n more bytes of a stream have room.
func (s *sockets) hold(c *inbound, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.open[c]; !open {
		return true // it is being closed
	}
	c.read += n
	s.held.bytes += n
	if c.stranger {
		s.held.strangeBytes += n
	}
	return c.read <= maxStreamBytes && s.held.bytes <= maxStreamsBytes && s.held.strangeBytes <= maxStrangeBytes
}

func (s *sockets) release(c *inbound) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	if s.held.of[c.from]--; s.held.of[c.from] == 0 {
		delete(s.held.of, c.from)
	}
	s.held.bytes -= c.read
	if c.stranger {
		s.held.strangers--
		s.held.strangeBytes -= c.read
	}
}
