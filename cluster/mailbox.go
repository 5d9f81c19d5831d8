package cluster

import (
	"bytes"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// mailbox has messages that wait for the exchange, in their order. The zero value is
// empty.
type mailbox struct {
	messages []incoming
	bytes    int
}

// put adds a copy of a message, and tells whether there was room.
func (b *mailbox) put(message []byte, at time.Time, most, mostBytes int) bool {
	if len(b.messages) >= most || b.bytes+len(message) > mostBytes {
		return false
	}
	b.messages = append(b.messages, incoming{bytes.Clone(message), at})
	b.bytes += len(message)
	return true
}

// take removes the message that has waited the longest.
func (b *mailbox) take() (m incoming, ok bool) {
	if len(b.messages) == 0 {
		return m, false
	}
	m, b.messages[0] = b.messages[0], incoming{}
	b.messages = b.messages[1:]
	b.bytes -= len(m.bytes)
	if len(b.messages) == 0 {
		b.messages = nil
	}
	return m, true
}

// isUrgent tells whether a message is handled before those that bring objects: who says
// that he lives, renews leases or answers a question must not wait for them.
func isUrgent(message []byte) bool {
	for range 5 { // version, from, stream, life and the body
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return false
		}
		switch number {
		case bodyBeat, bodyConfirmed, bodyRenewed, bodyHints, bodyKeyRequest, bodyKeyResponse:
			return kind == protowire.BytesType
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 {
			return false
		}
		message = message[n+size:]
	}
	return false
}

// The bodies of messages that are urgent, by their fields of Message.
const (
	bodyBeat        protowire.Number = 12
	bodyConfirmed   protowire.Number = 17
	bodyRenewed     protowire.Number = 18
	bodyHints       protowire.Number = 19
	bodyKeyRequest  protowire.Number = 20
	bodyKeyResponse protowire.Number = 21
)
