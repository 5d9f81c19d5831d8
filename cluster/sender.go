package cluster

import (
	"github.com/hashicorp/memberlist"
)

const (
	// maxWaiting and maxWaitingBytes bound what waits for one peer. One message always
	// has room.
	maxWaiting      = 256
	maxWaitingBytes = 32 << 20
)

// sender is what waits to go to one peer by streams, one after the other.
type sender struct {
	waiting [][]byte
	bytes   int
}

// send has a message go to a peer, unless too many wait already.
func (s *session) send(to string, message []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	q := s.senders[to]
	begin := q == nil
	if begin {
		q = &sender{}
		s.senders[to] = q
	}
	if len(q.waiting) >= maxWaiting || len(q.waiting) > 0 && q.bytes+len(message) > maxWaitingBytes {
		s.m.dropped.Add(1)
		return
	}
	q.waiting = append(q.waiting, message)
	q.bytes += len(message)
	if begin {
		s.tasks.Go(func() { s.deliver(to, q) })
	}
}

// deliver sends what waits for a peer until nothing does. When the peer cannot be reached
// the rest is dropped: it is compared with later.
func (s *session) deliver(to string, q *sender) {
	var failed error
	for {
		message := s.next(to, q, failed != nil)
		if message == nil {
			return
		}
		if peer, lives := s.m.node(to); lives {
			failed = s.sendReliable(&peer, message)
		}
	}
}

func (s *session) sendReliable(peer *memberlist.Node, message []byte) error {
	err := s.list.SendReliable(peer, message)
	if err != nil && s.ctx.Err() == nil {
		s.m.refusals.add(unreachable, peer.Addr.String(), "send a message: "+err.Error())
	}
	return err
}

// next takes what waits longest; nil is the end of the sender.
func (s *session) next(to string, q *sender, failed bool) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if failed || s.ended {
		s.m.dropped.Add(uint64(len(q.waiting)))
		q.waiting = nil
	}
	if len(q.waiting) == 0 {
		delete(s.senders, to)
		return nil
	}
	message := q.waiting[0]
	q.waiting[0] = nil
	q.waiting = q.waiting[1:]
	q.bytes -= len(message)
	return message
}
