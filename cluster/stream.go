package cluster

import (
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
)

// What memberlist's streams and packets begin with.
const (
	labelMark     = 244 // the label follows, with its length
	encryptedMark = 10  // a stream: the length of what is encrypted follows, and that
	compressMark  = 9
	cipherVersion = 1  // the first byte of what is encrypted
	cipherSpace   = 29 // what encryption adds, in bytes
)

// stream is one of a session: it is counted, looked at, and closed at the end.
type stream struct {
	net.Conn
	s      *session
	gate   gate
	closed atomic.Bool
}

// track makes a stream one of the session; nil when that has ended.
func (s *session) track(conn net.Conn) *stream {
	c := &stream{Conn: conn, s: s, gate: gate{passed: s.m.keys == nil}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	s.streams[c] = struct{}{}
	return c
}

// Read gives nothing of what would end memberlist.
func (c *stream) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.s.m.traffic.streamsIn.Add(uint64(n))
	if !c.gate.look(b[:n]) {
		c.s.m.refused(malformed, addressOf(c.RemoteAddr()).String())
		c.Close()
		return 0, errors.New("more than streams may hold, or less than they must")
	}
	return n, err
}

// Write closes a stream that takes no more: of one that has not taken its label,
// memberlist forgets it.
func (c *stream) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.s.m.traffic.streamsOut.Add(uint64(n))
	if err != nil {
		c.Close()
	}
	return n, err
}

// Close is called once or more often.
func (c *stream) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	err := c.Conn.Close()
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, c)
	if s.ended && len(s.streams) == 0 {
		close(s.idle)
	}
	return err
}

// gate looks at how a stream begins. memberlist panics on what is encrypted and empty,
// and on a padding, of an older encryption, that is longer than what it pads: only who
// has the key can send that, but a peer must not end this node either.
type gate struct {
	head   []byte // what was read so far
	passed bool
}

// look tells whether what was read may go on.
func (g *gate) look(b []byte) bool {
	if g.passed {
		return true
	}
	const longest = 2 + 255 + 6
	g.head = append(g.head, b[:min(len(b), longest-len(g.head))]...)
	head := g.head
	if len(head) >= 2 && head[0] == labelMark {
		head = head[min(2+int(head[1]), len(head)):]
	} else if len(head) == 1 && head[0] == labelMark {
		return true
	}
	switch {
	case len(head) == 0:
		return true
	case head[0] != encryptedMark:
		g.pass() // memberlist does not take it
	case len(head) >= 6:
		if binary.BigEndian.Uint32(head[1:]) <= cipherSpace || head[5] != cipherVersion {
			return false
		}
		g.pass()
	}
	return true
}

func (g *gate) pass() { g.head, g.passed = nil, true }
