package cluster

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// What the network of tests holds at most.
const (
	packetQueue  = 1024      // packets that wait at a node, as in a socket's buffer
	streamQueue  = 64        // streams that wait to be accepted
	streamBuffer = 256 << 10 // bytes on their way in one direction of a stream
)

// network is a network in memory: nodes with addresses of their own, packets that get
// lost, ways that are cut. It has no goroutines; in a bubble of testing/synctest its
// time is the bubble's.
type network struct {
	t testing.TB

	mu     sync.Mutex
	random *rand.Rand
	ends   map[string]*networkEnd // by address
	places map[string]string      // addresses by id, of those gone, too
	loss   int                    // percent of packets
	delay  time.Duration          // one way
	cuts   map[way]reachCut
	groups map[string]int // by id; empty: all are together
	kept   *[]keptPacket  // nil: packets are not recorded
}

// keptPacket is one that was sent, for another time.
type keptPacket struct {
	from, to string // the sender's id, the receiver's address
	packet   memberlist.Packet
}

// way is from one node to another, by their ids.
type way struct{ from, to string }

// reachCut is what of a way is cut.
type reachCut struct{ packets, streams bool }

func newNetwork(t testing.TB, seed uint64) *network {
	t.Helper()
	return &network{
		t: t, random: rand.New(rand.NewPCG(seed, seed)),
		ends: map[string]*networkEnd{}, places: map[string]string{}, cuts: map[way]reachCut{}, groups: map[string]int{},
	}
}

// transport is a new end of the network. One of the same id has to be gone; its address
// is taken over.
func (n *network) transport(id string) memberlist.NodeAwareTransport { return n.end(id) }

func (n *network) end(id string) *networkEnd {
	n.t.Helper()
	address := n.address(id)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ends[address] != nil {
		n.t.Fatalf("there is a node %q at %s already", id, address)
	}
	e := &networkEnd{
		network: n, id: id, address: address,
		packets: make(chan *memberlist.Packet, packetQueue), streams: make(chan net.Conn, streamQueue),
		conns: map[*networkConn]struct{}{},
	}
	n.ends[address] = e
	return e
}

// address is where a node is, or will be.
func (n *network) address(id string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.places[id] == "" {
		n.places[id] = newPlace(len(n.places))
	}
	return n.places[id]
}

// newPlace is an address that nothing listens at.
func newPlace(number int) string { return fmt.Sprintf("10.0.%d.%d:7946", number/250, 1+number%250) }

// move gives the node of that id another address, once it is started anew.
func (n *network) move(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.places["gone "+n.places[id]] = n.places[id]
	n.places[id] = newPlace(len(n.places))
}

// lose has that part of all packets disappear.
func (n *network) lose(percent int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = percent
}

// slow has everything take that long to arrive.
func (n *network) slow(delay time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = delay
}

// cut ends all ways between two nodes.
func (n *network) cut(a, b string) {
	n.cutWay(a, b, reachCut{packets: true, streams: true})
	n.cutWay(b, a, reachCut{packets: true, streams: true})
}

// cutPackets ends the way of packets from one node to another, in this direction alone.
func (n *network) cutPackets(from, to string) { n.cutWay(from, to, reachCut{packets: true}) }

func (n *network) cutWay(from, to string, what reachCut) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[way{from, to}] = what
}

// split leaves nodes the ways within their group. Who is in no group is in the first.
func (n *network) split(groups ...[]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.groups)
	for i, group := range groups {
		for _, id := range group {
			n.groups[id] = i
		}
	}
}

// heal mends all cuts and splits, and has packets arrive.
func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.groups)
	clear(n.cuts)
	n.loss = 0
}

// crash takes a node off the network as a power cut does: it hears and says nothing any
// more, and has yet to be shut down.
func (n *network) crash(id string) {
	n.mu.Lock()
	e := n.ends[n.places[id]]
	n.mu.Unlock()
	if e != nil {
		e.vanish()
	}
}

// carried is what has gone in and out at a node's end so far, in all its lives.
func (n *network) carried(id string) (packets, streams Traffic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.ends[n.places[id]]
	if e == nil {
		return Traffic{}, Traffic{}
	}
	return e.packetBytes, e.streamBytes
}

// opened counts the packets and the streams that a node has begun.
func (n *network) opened(id string) (packets, streams uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.ends[n.places[id]]
	if e == nil {
		return 0, 0
	}
	return e.packetsSent, e.streamsDialed
}

// blocked tells whether nothing gets from one node to another. Under mu.
func (n *network) blocked(from, to string) reachCut {
	if n.groups[from] != n.groups[to] {
		return reachCut{packets: true, streams: true}
	}
	return n.cuts[way{from, to}]
}

// networkEnd is where a node is connected.
type networkEnd struct {
	network     *network
	id, address string
	packets     chan *memberlist.Packet
	streams     chan net.Conn

	// Under the network's mu.
	gone                       bool
	conns                      map[*networkConn]struct{}
	packetBytes, streamBytes   Traffic
	packetsSent, streamsDialed uint64
}

var _ memberlist.NodeAwareTransport = (*networkEnd)(nil)

func (e *networkEnd) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	address := e.udpAddr()
	if ip == "" {
		return address.IP, address.Port, nil
	}
	given := net.ParseIP(ip)
	if given == nil {
		return nil, 0, fmt.Errorf("advertise %q: no IP address", ip)
	}
	return given, port, nil
}

func (e *networkEnd) udpAddr() *net.UDPAddr {
	host, text, _ := net.SplitHostPort(e.address)
	port, _ := strconv.Atoi(text)
	return &net.UDPAddr{IP: net.ParseIP(host).To4(), Port: port}
}

func (e *networkEnd) PacketCh() <-chan *memberlist.Packet { return e.packets }

func (e *networkEnd) StreamCh() <-chan net.Conn { return e.streams }

func (e *networkEnd) WriteTo(b []byte, address string) (time.Time, error) {
	return e.WriteToAddress(b, memberlist.Address{Addr: address})
}

// WriteToAddress never fails, and never waits: what cannot arrive is lost.
func (e *networkEnd) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	now := time.Now()
	n := e.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if e.gone {
		return now, net.ErrClosed
	}
	e.packetBytes.Sent += uint64(len(b))
	e.packetsSent++
	p := &memberlist.Packet{Buf: slices.Clone(b), From: e.udpAddr()}
	switch {
	case n.random.IntN(100) < n.loss:
	case n.delay > 0:
		time.AfterFunc(n.delay, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.deliver(e.id, to.Addr, p)
		})
	default:
		n.deliver(e.id, to.Addr, p)
	}
	return now, nil
}

// deliver puts a packet into the queue of whom it is for. Under mu.
func (n *network) deliver(from, address string, p *memberlist.Packet) {
	to := n.ends[address]
	if to == nil || to.gone || n.blocked(from, to.id).packets {
		return
	}
	p.Timestamp = time.Now()
	if n.kept != nil {
		*n.kept = append(*n.kept, keptPacket{from, address, *p})
	}
	select {
	case to.packets <- p:
		to.packetBytes.Received += uint64(len(p.Buf))
	default:
	}
}

// record keeps all packets that arrive until its result is called.
func (n *network) record() (stop func() []keptPacket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kept = &[]keptPacket{}
	return func() []keptPacket {
		n.mu.Lock()
		defer n.mu.Unlock()
		kept := *n.kept
		n.kept = nil
		return kept
	}
}

// replay has a packet arrive once more.
func (n *network) replay(k keptPacket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := k.packet
	p.Buf = slices.Clone(p.Buf)
	n.deliver(k.from, k.to, &p)
}

func (e *networkEnd) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return e.DialAddressTimeout(memberlist.Address{Addr: address}, timeout)
}

// DialAddressTimeout is refused at once where nobody listens, and is left to wait where
// the way is cut, as TCP is.
func (e *networkEnd) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	n := e.network
	n.mu.Lock()
	delay := 2 * n.delay
	n.mu.Unlock()
	if delay > 0 {
		<-time.After(min(delay, timeout))
	}
	conn, cut, err := e.connect(to.Addr)
	if cut {
		<-time.After(max(0, timeout-delay))
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	return conn, err
}

func (e *networkEnd) connect(address string) (_ net.Conn, cut bool, _ error) {
	n := e.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if e.gone {
		return nil, false, net.ErrClosed
	}
	to := n.ends[address]
	if to == nil {
		to = &networkEnd{id: "nobody", gone: true}
		for id, place := range n.places { // nobody listens, and is not to be reached, either
			if place == address {
				to.id = id
			}
		}
	}
	if n.blocked(e.id, to.id).streams || n.blocked(to.id, e.id).streams {
		return nil, true, nil
	}
	if to.gone {
		return nil, false, fmt.Errorf("dial %s: connection refused", address)
	}
	here, there := newConns(e, to)
	select {
	case to.streams <- there:
	default:
		return nil, true, nil
	}
	e.streamsDialed++
	e.conns[here], to.conns[there] = struct{}{}, struct{}{}
	return here, false, nil
}

// Shutdown ends all streams of this node.
func (e *networkEnd) Shutdown() error {
	e.vanish()
	n := e.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ends[e.address] == e {
		delete(n.ends, e.address)
	}
	return nil
}

// vanish has nobody hear of this end any more.
func (e *networkEnd) vanish() {
	e.network.mu.Lock()
	e.gone = true
	conns := e.conns
	e.conns = map[*networkConn]struct{}{}
	e.network.mu.Unlock()
	for c := range conns {
		c.Close()
	}
	for {
		select {
		case c := <-e.streams: // nobody will accept it
			c.Close()
		default:
			return
		}
	}
}

// networkConn is one side of a stream.
type networkConn struct {
	end, peer             *networkEnd
	in, out               *halfStream
	readUntil, writeUntil deadline
}

func newConns(a, b *networkEnd) (*networkConn, *networkConn) {
	there, back := newHalfStream(), newHalfStream()
	here := &networkConn{end: a, peer: b, in: back, out: there}
	return here, &networkConn{end: b, peer: a, in: there, out: back}
}

func (c *networkConn) Read(b []byte) (int, error) {
	n, err := c.in.read(b, &c.readUntil)
	c.end.network.mu.Lock()
	defer c.end.network.mu.Unlock()
	c.end.streamBytes.Received += uint64(n)
	return n, err
}

// Write loses what a cut is in the way of, and then all that comes after.
func (c *networkConn) Write(b []byte) (int, error) {
	c.end.network.mu.Lock()
	c.end.streamBytes.Sent += uint64(len(b))
	cut := c.end.network.blocked(c.end.id, c.peer.id).streams
	c.end.network.mu.Unlock()
	return c.out.write(b, cut, &c.writeUntil)
}

func (c *networkConn) Close() error {
	c.end.network.mu.Lock()
	delete(c.end.conns, c)
	c.end.network.mu.Unlock()
	c.in.close(true)
	c.out.close(false)
	return nil
}

func (c *networkConn) LocalAddr() net.Addr  { return c.end.tcpAddr() }
func (c *networkConn) RemoteAddr() net.Addr { return c.peer.tcpAddr() }

func (e *networkEnd) tcpAddr() net.Addr {
	a := e.udpAddr()
	return &net.TCPAddr{IP: a.IP, Port: a.Port}
}

func (c *networkConn) SetDeadline(t time.Time) error {
	c.readUntil.set(t)
	c.writeUntil.set(t)
	return nil
}

func (c *networkConn) SetReadDeadline(t time.Time) error {
	c.readUntil.set(t)
	return nil
}

func (c *networkConn) SetWriteDeadline(t time.Time) error {
	c.writeUntil.set(t)
	return nil
}

// halfStream is one direction of a stream.
type halfStream struct {
	mu      sync.Mutex
	data    []byte
	ended   bool          // by the writer: what is there is read first
	dead    bool          // by the reader
	lost    bool          // a cut has swallowed some of it
	changed chan struct{} // closed at the next change
}

func newHalfStream() *halfStream { return &halfStream{changed: make(chan struct{})} }

// tell wakes whoever waits. Under mu.
func (h *halfStream) tell() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *halfStream) read(b []byte, until *deadline) (int, error) {
	for {
		h.mu.Lock()
		switch changed := h.changed; {
		case h.dead:
			h.mu.Unlock()
			return 0, net.ErrClosed
		case until.over():
			h.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(h.data) > 0:
			n := copy(b, h.data)
			h.data = h.data[n:]
			h.tell()
			h.mu.Unlock()
			return n, nil
		case h.ended && !h.lost:
			h.mu.Unlock()
			return 0, io.EOF
		default:
			h.mu.Unlock()
			until.await(changed)
		}
	}
}

func (h *halfStream) write(b []byte, cut bool, until *deadline) (written int, _ error) {
	for {
		h.mu.Lock()
		h.lost = h.lost || cut
		switch changed := h.changed; {
		case h.ended:
			h.mu.Unlock()
			return written, net.ErrClosed
		case h.dead:
			h.mu.Unlock()
			return written, io.ErrClosedPipe
		case until.over():
			h.mu.Unlock()
			return written, os.ErrDeadlineExceeded
		case h.lost:
			h.mu.Unlock()
			return len(b), nil
		case len(h.data) < streamBuffer:
			n := min(len(b)-written, streamBuffer-len(h.data))
			h.data = append(h.data, b[written:written+n]...)
			written += n
			h.tell()
			h.mu.Unlock()
			if written == len(b) {
				return written, nil
			}
		default:
			h.mu.Unlock()
			until.await(changed)
		}
	}
}

func (h *halfStream) close(byReader bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if byReader {
		h.dead, h.data = true, nil
	} else {
		h.ended = true
	}
	h.tell()
}

// deadline is one of a connection; the zero time is none.
type deadline struct {
	mu      sync.Mutex
	at      time.Time
	changed chan struct{}
}

func (d *deadline) set(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = at
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
}

func (d *deadline) over() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.at.IsZero() && !time.Now().Before(d.at)
}

// await returns at the deadline, when that is set anew, or when something has happened.
func (d *deadline) await(happened <-chan struct{}) {
	d.mu.Lock()
	if d.changed == nil {
		d.changed = make(chan struct{})
	}
	changed, at := d.changed, d.at
	d.mu.Unlock()
	var over <-chan time.Time
	if !at.IsZero() {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-happened:
	case <-changed:
	case <-over:
	}
}
