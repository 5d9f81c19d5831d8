package cluster

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// membershipMark is the first byte of what memberships tell each other. No message of
	// the exchange begins with it: in protobuf it would be a field of number zero.
	membershipMark = 0
	// maxGoodbyes bounds those that are remembered, and told to who joins.
	maxGoodbyes = 100
	// goodbyeRoom is what of them is told at once, in bytes.
	goodbyeRoom = 8 << 10
)

// goodbye says that a node has ended one of its lives by itself: memberlist does not say
// whether who is gone has left or crashed.
type goodbye struct {
	Node string `json:"n"`
	Life string `json:"i"`
	// Ends says that its process ends, and may come back; else it has left its cluster.
	Ends bool `json:"e,omitempty"`
}

// parting is a goodbye that was heard.
type parting struct {
	life string
	ends bool
	at   time.Time
}

// word says which of the two it was.
func (p parting) word() string {
	if p.ends {
		return "ended"
	}
	return "left"
}

// encodeGoodbyes is what memberships tell each other.
func encodeGoodbyes(all []goodbye) []byte {
	text, err := json.Marshal(all)
	if err != nil {
		panic("goodbyes are not encoded: " + err.Error()) // never, of strings
	}
	return append([]byte{membershipMark}, text...)
}

// decodeGoodbyes reads what a membership tells, and leaves out what makes no sense.
func decodeGoodbyes(b []byte) (all []goodbye, ok bool) {
	text, is := bytes.CutPrefix(b, []byte{membershipMark})
	if !is || len(text) > goodbyeRoom || json.Unmarshal(text, &all) != nil || len(all) > maxGoodbyes {
		return nil, false
	}
	for _, g := range all {
		if !isNodeID(g.Node) || g.Life == "" || len(g.Life) > maxMetaText || g.Life != shorten(g.Life) {
			return nil, false
		}
	}
	return all, true
}

// goodbyeBroadcast is a goodbye on its way through the cluster.
type goodbyeBroadcast struct {
	node    string
	message []byte
	sent    chan struct{} // takes something when it was sent often enough; nil: nobody asks
}

var _ memberlist.NamedBroadcast = goodbyeBroadcast{}

func (b goodbyeBroadcast) Name() string    { return b.node }
func (b goodbyeBroadcast) Message() []byte { return b.message }

// Finished is called when it was sent often enough.
func (b goodbyeBroadcast) Finished() {
	if b.sent != nil {
		signal(b.sent)
	}
}

// Invalidates is not asked of what has a name.
func (b goodbyeBroadcast) Invalidates(memberlist.Broadcast) bool { return false }

// sayGoodbye tells the peers that this life ends: all of them at once, and through each
// other. What it returns takes something when it was sent often enough.
func (s *session) sayGoodbye(ends bool) (sent <-chan struct{}) {
	own := goodbye{s.m.self, s.life, ends}
	message := encodeGoodbyes([]goodbye{own})
	told := make(chan struct{}, 1)
	s.byes.QueueBroadcast(goodbyeBroadcast{own.Node, message, told})
	for _, peer := range s.m.live() {
		_ = s.list.SendBestEffort(&peer, message)
	}
	return told
}

// passOn puts a goodbye into the next packets of gossip.
func (s *session) passOn(g goodbye) {
	s.byes.QueueBroadcast(goodbyeBroadcast{node: g.Node, message: encodeGoodbyes([]goodbye{g})})
}

// hear takes goodbyes, and passes on those that are new here.
func (s *session) hear(all []goodbye) {
	for _, g := range all {
		if g.Node != s.m.self && s.m.parted(s, g) {
			s.passOn(g)
		}
	}
}
