package cluster

import (
	"github.com/hashicorp/memberlist"

	clusterv1 "sluice/cluster/v1"
)

const (
	// maxGossip is how many versions at once go by gossip; more are fetched over TCP.
	maxGossip = 64
	// maxBurst is how many packets a peer is sent at once; more goes over TCP.
	maxBurst = 8
	// maxPush is how many bytes of objects a peer is sent without having asked.
	maxPush = 2 << 20
	// bulkPeers is to how many peers those who have taken in many versions at once pass on
	// that there are such.
	bulkPeers = 3
)

// broadcast is one version on its way by gossip: a later one of the same object takes its
// place.
type broadcast struct {
	name    string
	message []byte
}

var _ memberlist.NamedBroadcast = (*broadcast)(nil)

func (b *broadcast) Name() string { return b.name }
func (b *broadcast) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(*broadcast)
	return ok && o.name == b.name
}
func (b *broadcast) Message() []byte { return b.message }
func (b *broadcast) Finished()       {}

// announce tells the peers of versions that were made here: at once those that it
// reaches directly, and by gossip everybody.
func (e *exchange) announce(versions []*version) {
	if len(versions) == 0 || e.staleness.stale || len(e.live) == 0 {
		return
	}
	objects := e.wireObjects(versions)
	if len(versions) <= maxGossip {
		e.gossip(versions, objects)
	}
	e.tellDirectly(e.some(e.live, directPeers), versions, objects)
}

// relay passes on versions that another node has told of.
func (e *exchange) relay(versions []*version) {
	switch {
	case len(versions) == 0 || e.staleness.stale:
	case len(versions) <= maxGossip:
		e.gossip(versions, e.wireObjects(versions))
	default:
		for _, id := range e.some(e.live, bulkPeers) {
			e.notice(id, versions)
		}
	}
}

// wireObjects are the versions as they travel, nil for what cannot be encoded.
func (e *exchange) wireObjects(versions []*version) []*clusterv1.Object {
	objects := make([]*clusterv1.Object, len(versions))
	for i, v := range versions {
		o, err := wireObject(v)
		if err != nil { // it is in the store, so it was encoded before
			e.log.Error("object not sent", "object", v.id, "error", err)
			continue
		}
		objects[i] = o
	}
	return objects
}

// gossip queues versions, those that do not fit a packet by name only.
func (e *exchange) gossip(versions []*version, objects []*clusterv1.Object) {
	for i, v := range versions {
		var message []byte
		if o := objects[i]; o != nil && objectSize(o) <= e.courier.PacketRoom() {
			message = e.packet(changesMessage(&clusterv1.Changes{Objects: []*clusterv1.Object{o}}))
		}
		if message == nil {
			message = e.packet(noticeMessage([]*clusterv1.Entry{wireEntry(v)}))
		}
		if message != nil {
			e.queue.QueueBroadcast(&broadcast{v.id.String(), message})
		}
	}
	e.queue.Prune(maxQueued)
}

// tellDirectly sends versions to some peers, by UDP when they take few packets.
func (e *exchange) tellDirectly(to []string, versions []*version, objects []*clusterv1.Object) {
	total := 0
	for _, o := range objects {
		if o != nil {
			total += objectSize(o)
		}
	}
	if total > maxPush {
		for _, id := range to {
			e.notice(id, versions)
		}
		return
	}
	packets := e.packets(objects)
	for _, id := range to {
		for _, p := range packets {
			e.courier.SendPacket(id, p)
		}
		if packets == nil {
			e.sendObjects(id, objects, false)
		}
	}
}

// packets are the messages for UDP that have these objects, nil when they do not fit into
// a few.
func (e *exchange) packets(objects []*clusterv1.Object) [][]byte {
	const envelope = 128
	var packets [][]byte
	for _, chunk := range chunkObjects(objects, e.courier.PacketRoom()-envelope) {
		b := e.packet(changesMessage(&clusterv1.Changes{Objects: chunk}))
		if b == nil || len(packets) == maxBurst {
			return nil
		}
		packets = append(packets, b)
	}
	return packets
}

// sendObjects sends objects over TCP.
func (e *exchange) sendObjects(to string, objects []*clusterv1.Object, answer bool) {
	for _, chunk := range chunkObjects(objects, maxChunk) {
		e.send(to, changesMessage(&clusterv1.Changes{Objects: chunk, Answer: answer}))
	}
}

// notice names versions to a peer, which asks for those that it lacks.
func (e *exchange) notice(to string, versions []*version) {
	for _, chunk := range chunkEntries(versions) {
		e.send(to, noticeMessage(chunk))
	}
}

// chunkObjects parts objects so that each part but one of a single object has at most
// room bytes.
func chunkObjects(objects []*clusterv1.Object, room int) [][]*clusterv1.Object {
	var chunks [][]*clusterv1.Object
	left := 0
	for _, o := range objects {
		if o == nil {
			continue
		}
		size := objectSize(o)
		if len(chunks) == 0 || size > left {
			chunks = append(chunks, nil)
			left = room
		}
		left -= size
		chunks[len(chunks)-1] = append(chunks[len(chunks)-1], o)
	}
	return chunks
}

// entriesInChunk is how many entries one message has: half a mebibyte at the length that
// names rarely have.
const entriesInChunk = 2000

func chunkEntries(versions []*version) [][]*clusterv1.Entry {
	var chunks [][]*clusterv1.Entry
	for i, v := range versions {
		if i%entriesInChunk == 0 {
			chunks = append(chunks, nil)
		}
		chunks[len(chunks)-1] = append(chunks[len(chunks)-1], wireEntry(v))
	}
	return chunks
}

func changesMessage(c *clusterv1.Changes) *clusterv1.Message {
	return &clusterv1.Message{Body: &clusterv1.Message_Changes{Changes: c}}
}

func noticeMessage(entries []*clusterv1.Entry) *clusterv1.Message {
	return &clusterv1.Message{Body: &clusterv1.Message_Notice{Notice: &clusterv1.Notice{Entries: entries}}}
}
