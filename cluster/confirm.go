package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

const (
	// maxConfirms bounds how many peers' waits are under way here, and how many of our own.
	maxConfirms = 64
	// confirmAgain is after how long a peer that has not answered is asked once more.
	confirmAgain = 2 * time.Second
	// maxConfirmFor bounds how long a peer may have us wait.
	maxConfirmFor = 5 * time.Minute
)

// errAway is of a peer that is not there any more.
var errAway = errors.New("it does not live any more")

// confirms are the waits for peers to obey: those of this node, and those that this node
// is waited for.
type confirms struct {
	seq  uint64
	own  map[uint64]*ownConfirm
	owed map[confirmKey]*owedConfirm
}

// ownConfirm waits for peers.
type ownConfirm struct {
	message *clusterv1.Confirm
	waiting map[string]bool
	failed  map[string]error
	until   time.Time // by the steady clock
	again   time.Time
	done    func(map[string]error) // called once, with why peers do not obey
}

type confirmKey struct {
	peer string
	id   uint64
}

// owedConfirm is waited for by a peer.
type owedConfirm struct {
	missing map[store.ID]store.Revision
	until   time.Time
	obeying bool // all is merged, and the gateway is waited for
}

func newConfirms() confirms {
	return confirms{own: map[uint64]*ownConfirm{}, owed: map[confirmKey]*owedConfirm{}}
}

// confirm asks all live peers to say when they obey these versions. It returns a number
// for giveUp; done is called once, or never after giveUp.
func (e *exchange) confirm(changes []store.Change, within time.Duration, done func(map[string]error)) uint64 {
	e.follow()
	if len(e.live) == 0 || len(changes) == 0 {
		done(nil)
		return 0
	}
	if len(e.confirms.own) >= maxConfirms {
		done(e.forAll(fmt.Errorf("%d writes wait for the peers, limit %d", len(e.confirms.own), maxConfirms)))
		return 0
	}
	if len(changes) > maxRecords/8 {
		done(e.forAll(fmt.Errorf("%d changes in one write, limit of a wait %d", len(changes), maxRecords/8)))
		return 0
	}
	e.confirms.seq++
	c := &ownConfirm{
		message: &clusterv1.Confirm{Id: e.confirms.seq}, waiting: map[string]bool{}, failed: map[string]error{},
		until: e.now().Add(min(within, maxConfirmFor)), done: done,
	}
	for _, change := range changes {
		entry := &clusterv1.Entry{Name: wireName(change.ID), Revision: wireRevision(change.After.Revision), Sum: sumOf(change.After)}
		c.message.Entries = append(c.message.Entries, entry)
	}
	for _, id := range e.live {
		c.waiting[id] = true
	}
	e.confirms.own[c.message.Id] = c
	e.askConfirm(c)
	return c.message.Id
}

func (e *exchange) forAll(err error) map[string]error {
	all := map[string]error{}
	for _, id := range e.live {
		all[id] = err
	}
	return all
}

// askConfirm asks those that have not answered.
func (e *exchange) askConfirm(c *ownConfirm) {
	now := e.now()
	c.again = now.Add(confirmAgain)
	c.message.Within = uint32(max(c.until.Sub(now), 0).Milliseconds())
	for _, id := range e.live {
		if c.waiting[id] {
			e.send(id, &clusterv1.Message{Body: &clusterv1.Message_Confirm{Confirm: c.message}})
		}
	}
}

// giveUp returns who has not answered, and forgets the wait.
func (e *exchange) giveUp(id uint64, err error) map[string]error {
	c := e.confirms.own[id]
	if c == nil {
		return nil
	}
	delete(e.confirms.own, id)
	for peer := range c.waiting {
		c.failed[peer] = err
	}
	return c.failed
}

// answered takes what a peer says.
func (cs *confirms) answered(peer string, a *clusterv1.Confirmed) {
	var err error
	if a.Error != "" {
		err = errors.New(a.Error)
	}
	cs.settle(a.Id, peer, err)
}

func (cs *confirms) settle(id uint64, peer string, err error) {
	c := cs.own[id]
	if c == nil || !c.waiting[peer] {
		return
	}
	delete(c.waiting, peer)
	if err != nil {
		c.failed[peer] = err
	}
	if len(c.waiting) == 0 {
		delete(cs.own, id)
		c.done(c.failed)
	}
}

// lost ends the waits for a peer that does not live any more, and what it waited for.
func (cs *confirms) lost(peer string) {
	for id := range cs.own {
		cs.settle(id, peer, errAway)
	}
	for key := range cs.owed {
		if key.peer == peer {
			delete(cs.owed, key)
		}
	}
}

// takeConfirm begins to wait for a peer: for what it names, and then for the gateway.
func (e *exchange) takeConfirm(from string, c *clusterv1.Confirm) {
	key := confirmKey{from, c.Id}
	if owed := e.confirms.owed[key]; owed != nil {
		if !owed.obeying {
			e.want(from, c.Entries)
		}
		return
	}
	if len(e.confirms.owed) >= maxConfirms {
		e.answerConfirm(key, fmt.Errorf("%d waits are under way, limit %d", len(e.confirms.owed), maxConfirms))
		return
	}
	within := min(time.Duration(c.Within)*time.Millisecond, maxConfirmFor)
	owed := &owedConfirm{missing: map[store.ID]store.Revision{}, until: e.now().Add(within)}
	for _, entry := range c.Entries {
		owed.missing[nameID(entry.Name)] = revisionOf(entry.Revision)
	}
	e.confirms.owed[key] = owed
	for _, entry := range c.Entries { // asked for by name: refused before or not
		delete(e.unwanted, unwantedKey{nameID(entry.Name), entry.Sum})
	}
	e.advance(key, owed)
	if !owed.obeying {
		e.want(from, c.Entries)
	}
}

// progress looks whether what peers wait for is there by now.
func (cs *confirms) progress(e *exchange) {
	for _, key := range cs.owedKeys() {
		if owed := cs.owed[key]; owed != nil && !owed.obeying {
			e.advance(key, owed)
		}
	}
}

func (cs *confirms) owedKeys() []confirmKey {
	keys := make([]confirmKey, 0, len(cs.owed))
	for key := range cs.owed {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b confirmKey) int {
		if a.id != b.id {
			return int(a.id) - int(b.id)
		}
		return slices.Compare([]byte(a.peer), []byte(b.peer))
	})
	return keys
}

// advance takes out what is there, and when that is all waits for the gateway.
func (e *exchange) advance(key confirmKey, owed *owedConfirm) {
	for id, revision := range owed.missing {
		v := e.have.versions[id]
		switch {
		case v == nil || !v.knows(revision):
			continue
		case v.carried != nil:
			e.answerConfirm(key, fmt.Errorf("%s is of a newer version of Sluice than it: kept, and not in force there", id))
			return
		}
		delete(owed.missing, id)
	}
	if len(owed.missing) > 0 {
		return
	}
	owed.obeying = true
	seq, within := e.snapshot.Seq(), owed.until.Sub(e.now())
	if e.parts.InForce == nil {
		e.answerConfirm(key, nil)
		return
	}
	fits := e.spawn(func(ctx context.Context) func(context.Context) {
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		err := e.parts.InForce(ctx, seq)
		return func(context.Context) { e.answerConfirm(key, err) }
	})
	if !fits {
		e.answerConfirm(key, errors.New("too much is under way there"))
	}
}

// refused tells those that wait for an object that it was not taken.
func (cs *confirms) refused(e *exchange, from string, id store.ID, err error) {
	for _, key := range cs.owedKeys() {
		if _, waits := cs.owed[key].missing[id]; waits && key.peer == from {
			e.answerConfirm(key, fmt.Errorf("it refuses %w", err))
		}
	}
}

// answerConfirm tells a peer, and forgets that it waits.
func (e *exchange) answerConfirm(key confirmKey, err error) {
	delete(e.confirms.owed, key)
	a := &clusterv1.Confirmed{Id: key.id}
	if err != nil {
		a.Error = textFor(err)
	}
	e.send(key.peer, &clusterv1.Message{Body: &clusterv1.Message_Confirmed{Confirmed: a}})
}

// textFor is an error as a peer is told it.
func textFor(err error) string {
	text := err.Error()
	if len(text) > maxTextLen {
		text = text[:maxTextLen]
	}
	return validText(text)
}

// tickConfirms asks again, and forgets what nobody waits for any more.
func (e *exchange) tickConfirms() {
	now := e.now()
	for id := uint64(1); id <= e.confirms.seq && len(e.confirms.own) > 0; id++ {
		c := e.confirms.own[id]
		switch {
		case c == nil:
		case !now.Before(c.until):
			c.done(e.giveUp(id, context.DeadlineExceeded))
		case !now.Before(c.again):
			e.askConfirm(c)
		}
	}
	for key, owed := range e.confirms.owed {
		if !now.Before(owed.until) && !owed.obeying {
			delete(e.confirms.owed, key)
		}
	}
}
