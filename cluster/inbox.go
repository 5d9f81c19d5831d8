package cluster

import (
	"bytes"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// maxInbox bounds the messages that wait for the exchange, of either lane, and
	// maxInboxBytes those that bring objects. What does not fit is dropped: the comparison
	// mends it.
	maxInbox      = 4096
	maxInboxBytes = 48 << 20
	// maxUrgentBytes bounds those that nothing else mends in time.
	maxUrgentBytes = 16 << 20
	// inboxShares is into how many shares the room is parted: one sender fills one of them.
	inboxShares = 4
	// maxUrgentRow is after how many urgent messages in a row another one has its turn.
	maxUrgentRow = 64
	// maxEnvelope is how many fields of a message are looked at to know where it belongs.
	maxEnvelope = 16
)

// Why a message is dropped before it is read, or before it is sent.
const (
	droppedFull   = "inbox_full"
	droppedShare  = "inbox_share" // its sender has filled what one may fill
	droppedUnsent = "outbox_full" // or the peer is gone
)

// urgency says in which of the two lanes of an inbox a message waits.
type urgency int

// The lanes: who says that he lives, renews leases, or asks and answers what somebody
// waits for, does not wait for those that bring objects.
const (
	urgentLane urgency = iota
	bulkLane
	numLanes
)

// urgentBodies are the bodies of the urgent lane, by their fields of Message.
var urgentBodies = map[protowire.Number]bool{
	12: true, // Beat
	16: true, // Confirm
	17: true, // Confirmed
	18: true, // Renewed
	19: true, // Hints
	20: true, // KeyRequest
	21: true, // KeyResponse
}

// inbox has the messages that wait for the exchange: in each lane a queue for each sender,
// which take turns, so that one who says much holds up himself and not the others. It
// goes by the sender that a message names: whoever has the key can name another.
type inbox struct {
	lanes   [numLanes]inboxLane
	urgent  int               // urgent ones that were taken in a row
	dropped map[string]uint64 // by reason
}

type inboxLane struct {
	maxBytes     int
	count, bytes int
	boxes        map[string]*inboxBox // by sender; none is empty
	turns        []string             // the senders of boxes, the next one first
}

type inboxBox struct {
	waiting []incoming
	bytes   int
}

func newInbox() inbox {
	b := inbox{dropped: map[string]uint64{droppedFull: 0, droppedShare: 0, droppedUnsent: 0}}
	b.lanes[urgentLane] = inboxLane{maxBytes: maxUrgentBytes, boxes: map[string]*inboxBox{}}
	b.lanes[bulkLane] = inboxLane{maxBytes: maxInboxBytes, boxes: map[string]*inboxBox{}}
	return b
}

// put adds a copy of a message, or drops and counts it.
func (b *inbox) put(to urgency, sender string, message []byte, at time.Time) bool {
	if why := b.lanes[to].refuses(sender, len(message)); why != "" {
		b.dropped[why]++
		return false
	}
	b.lanes[to].add(sender, incoming{bytes.Clone(message), at})
	return true
}

// take removes the message that is to be handled next: an urgent one, as long as they do
// not hold up all others, of the sender whose turn it is.
func (b *inbox) take() (m incoming, found bool) {
	if b.urgent < maxUrgentRow {
		if m, found = b.lanes[urgentLane].take(); found {
			b.urgent++
			return m, true
		}
	}
	b.urgent = 0
	if m, found = b.lanes[bulkLane].take(); found {
		return m, true
	}
	return b.lanes[urgentLane].take()
}

// empty tells whether nothing waits.
func (b *inbox) empty() bool { return b.lanes[urgentLane].count+b.lanes[bulkLane].count == 0 }

// refuses is why there is no room, empty when there is. One message of a sender always has
// room, whatever its size, as long as the lane has.
func (l *inboxLane) refuses(sender string, size int) string {
	if l.count >= maxInbox || l.bytes+size > l.maxBytes {
		return droppedFull
	}
	box := l.boxes[sender]
	if box != nil && (len(box.waiting) >= maxInbox/inboxShares || box.bytes+size > l.maxBytes/inboxShares) {
		return droppedShare
	}
	return ""
}

func (l *inboxLane) add(sender string, m incoming) {
	box := l.boxes[sender]
	if box == nil {
		box = &inboxBox{}
		l.boxes[sender] = box
		l.turns = append(l.turns, sender)
	}
	box.waiting = append(box.waiting, m)
	box.bytes += len(m.bytes)
	l.count++
	l.bytes += len(m.bytes)
}

func (l *inboxLane) take() (m incoming, found bool) {
	if len(l.turns) == 0 {
		return m, false
	}
	sender := l.turns[0]
	l.turns = slices.Delete(l.turns, 0, 1)
	box := l.boxes[sender]
	m, box.waiting[0] = box.waiting[0], incoming{}
	box.waiting = box.waiting[1:]
	box.bytes -= len(m.bytes)
	l.count--
	l.bytes -= len(m.bytes)
	if len(box.waiting) == 0 {
		delete(l.boxes, sender)
	} else {
		l.turns = append(l.turns, sender)
	}
	return m, true
}

// addressee tells who a message says that it is of and where it belongs, without reading
// it. What is not as any node writes it is of nobody and not urgent.
func addressee(message []byte) (sender string, to urgency) {
	to = bulkLane
	urgent := len(message) <= maxMessage
	for range maxEnvelope {
		if len(message) == 0 {
			return sender, to
		}
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			break
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 {
			break
		}
		value := message[n : n+size]
		message = message[n+size:]
		switch {
		case kind != protowire.BytesType:
		case number == 2:
			from, _ := protowire.ConsumeBytes(value)
			sender = string(from)
		case number >= firstBody && number <= lastBody: // the last one counts
			to = bulkLane
			if urgent && urgentBodies[number] {
				to = urgentLane
			}
		}
	}
	return "", bulkLane
}
