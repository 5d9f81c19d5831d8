package cluster

import (
	"slices"
	"strings"
	"time"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

const (
	// notesEvery is how long hints are gathered before they are sent, and renewalsEvery
	// renewals: the shortest lease is a second long, and its node asks the endpoint before it
	// ends it.
	notesEvery    = 200 * time.Millisecond
	renewalsEvery = time.Second
	// maxHints is how many hints a node sends in a second, and takes of one peer.
	maxHints = 100
	// maxRenewals bounds the renewals that wait to be sent.
	maxRenewals = 50_000
	// notesInChunk is how many of either one message has, so that it fits a packet.
	notesInChunk = 16
)

// notes are what goes to peers in passing: nothing is lost for good when one does not
// arrive. Of renewals some are lost in any case, when who looks after a lease dies; none is
// because a network is busy, so they go over TCP.
type notes struct {
	next     time.Time
	renewed  time.Time // when renewals were sent last
	second   time.Time // when hints are counted anew
	sent     int       // hints since
	renewals map[string]map[store.ID]bool
	waiting  int // renewals, of all peers
	hints    map[hintKey]bool
}

type hintKey struct{ backend, address string }

func newNotes() notes {
	return notes{renewals: map[string]map[store.ID]bool{}, hints: map[hintKey]bool{}}
}

// renew passes on that a registration lives.
func (e *exchange) renew(steward string, id store.ID) {
	if steward == e.self || e.notes.waiting >= maxRenewals {
		return
	}
	if e.notes.renewals[steward] == nil {
		e.notes.renewals[steward] = map[store.ID]bool{}
	}
	if !e.notes.renewals[steward][id] {
		e.notes.renewals[steward][id] = true
		e.notes.waiting++
	}
}

// observe tells what was seen of endpoints, the latest of each.
func (e *exchange) observe(hints []Hint) {
	for _, h := range hints {
		key := hintKey{h.Backend, h.Address}
		if _, known := e.notes.hints[key]; known || len(e.notes.hints) < maxHints {
			e.notes.hints[key] = h.Down
		}
	}
}

// tickNotes sends what was gathered.
func (e *exchange) tickNotes() {
	now := e.now()
	if now.Before(e.notes.next) {
		return
	}
	e.notes.next = now.Add(notesEvery)
	if now.Sub(e.notes.renewed) >= renewalsEvery {
		e.notes.renewed = now
		e.sendRenewals()
	}
	if now.Sub(e.notes.second) >= time.Second {
		e.notes.second, e.notes.sent = now, 0
		for _, p := range e.peers {
			p.hints = 0
		}
	}
	e.sendHints()
}

func (e *exchange) sendRenewals() {
	for _, steward := range e.live {
		ids := e.notes.renewals[steward]
		var names []*clusterv1.Name
		for id := range ids {
			names = append(names, wireName(id))
		}
		slices.SortFunc(names, func(a, b *clusterv1.Name) int { return nameID(a).Compare(nameID(b)) })
		for chunk := range slices.Chunk(names, entriesInChunk) {
			e.send(steward, &clusterv1.Message{Body: &clusterv1.Message_Renewed{Renewed: &clusterv1.Renewed{Names: chunk}}})
		}
	}
	clear(e.notes.renewals)
	e.notes.waiting = 0
}

func (e *exchange) sendHints() {
	var hints []*clusterv1.Hint
	for key, down := range e.notes.hints {
		hints = append(hints, &clusterv1.Hint{Backend: key.backend, Address: key.address, Down: down})
	}
	slices.SortFunc(hints, func(a, b *clusterv1.Hint) int {
		return strings.Compare(a.Backend+" "+a.Address, b.Backend+" "+b.Address)
	})
	hints = hints[:min(len(hints), maxHints-e.notes.sent)]
	e.notes.sent += len(hints)
	for _, h := range hints {
		delete(e.notes.hints, hintKey{h.Backend, h.Address})
	}
	peers := e.some(e.live, directPeers)
	for chunk := range slices.Chunk(hints, notesInChunk) {
		for _, id := range peers {
			e.sendShort(id, &clusterv1.Message{Body: &clusterv1.Message_Hints{Hints: &clusterv1.Hints{Hints: chunk}}})
		}
	}
}

func (e *exchange) takeRenewed(r *clusterv1.Renewed) {
	if e.parts.Renewed == nil {
		return
	}
	for _, name := range r.Names {
		e.parts.Renewed(nameID(name))
	}
}

func (e *exchange) takeHints(p *peer, h *clusterv1.Hints) {
	for _, hint := range h.Hints {
		if p.hints++; p.hints > maxHints || e.parts.Hint == nil {
			return
		}
		e.parts.Hint(Hint{Node: p.id, Backend: hint.Backend, Address: hint.Address, Down: hint.Down})
	}
}
