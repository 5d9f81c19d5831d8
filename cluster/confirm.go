package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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

var (
	// errAway is of a peer that was asked and is not there any more.
	errAway = errors.New("it does not live any more, and has not said whether it obeys")
	// errOutdone is of a version that lost to one that had not seen it: nobody obeys it.
	errOutdone = errors.New("a change that was made elsewhere at the same time has won: see sluice conflicts")
)

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
	answers confirmation
	until   time.Time // by the steady clock
	again   time.Time
	done    func(confirmation) // called once
}

// confirmation has each peer that lived when it was asked, with why it does not obey; nil
// when it does.
type confirmation map[string]error

type confirmKey struct {
	peer string
	id   uint64
}

// owedConfirm is waited for by a peer.
type owedConfirm struct {
	asked   map[store.ID]edict
	missing map[store.ID]bool // of asked: not heard of yet
	until   time.Time
	obeying bool // all is merged, and the gateway is waited for
}

// edict is a version that is to be obeyed.
type edict struct {
	revision store.Revision
	deleted  bool
}

func newConfirms() confirms {
	return confirms{own: map[uint64]*ownConfirm{}, owed: map[confirmKey]*owedConfirm{}}
}

// confirm asks all peers that live, whether the exchange knows them yet or not, to say
// when they obey these versions. It returns a number for giveUp; done is called once, or
// never after giveUp.
func (e *exchange) confirm(changes []store.Change, within time.Duration, done func(confirmation)) uint64 {
	e.follow()
	asked := e.others()
	if len(asked) == 0 || len(changes) == 0 {
		done(nil)
		return 0
	}
	if err := e.confirms.fits(len(changes)); err != nil {
		done(forAll(asked, err))
		return 0
	}
	if e.confirms.seq == 0 { // no number is one of this node's life before
		e.confirms.seq = e.rand.Uint64()
	}
	e.confirms.seq = max(e.confirms.seq+1, 1)
	c := &ownConfirm{
		message: &clusterv1.Confirm{Id: e.confirms.seq}, waiting: map[string]bool{}, answers: confirmation{},
		until: e.now().Add(min(within, maxConfirmFor)), done: done,
	}
	for _, change := range changes {
		c.message.Entries = append(c.message.Entries, &clusterv1.Entry{
			Name: wireName(change.ID), Revision: wireRevision(change.After.Revision), Sum: sumOf(change.After),
			Deleted: change.After.Deleted,
		})
	}
	for _, id := range asked {
		c.waiting[id] = true
	}
	e.confirms.own[c.message.Id] = c
	e.askConfirm(c)
	return c.message.Id
}

// fits refuses what is more than can be waited for.
func (cs *confirms) fits(changes int) error {
	if len(cs.own) >= maxConfirms {
		return fmt.Errorf("it was not asked: %d writes wait for the peers, limit %d", len(cs.own), maxConfirms)
	}
	if changes > maxRecords/8 {
		return fmt.Errorf("it was not asked: %d changes in one write, limit of a wait %d", changes, maxRecords/8)
	}
	return nil
}

// others are the other nodes that live by membership, at this moment.
func (e *exchange) others() []string {
	return slices.DeleteFunc(slices.Clone(e.courier.Live()), func(id string) bool { return id == e.self })
}

func forAll(peers []string, err error) confirmation {
	all := confirmation{}
	for _, id := range peers {
		all[id] = err
	}
	return all
}

// askConfirm asks those that have not answered.
func (e *exchange) askConfirm(c *ownConfirm) {
	now := e.now()
	c.again = now.Add(confirmAgain)
	c.message.Within = uint32(max(c.until.Sub(now), 0).Milliseconds())
	for _, id := range slices.Sorted(maps.Keys(c.waiting)) {
		e.send(id, &clusterv1.Message{Body: &clusterv1.Message_Confirm{Confirm: c.message}})
	}
}

// giveUp returns the answers so far, with err for those that have not answered, and
// forgets the wait.
func (e *exchange) giveUp(id uint64, err error) confirmation {
	c := e.confirms.own[id]
	if c == nil {
		return nil
	}
	delete(e.confirms.own, id)
	for peer := range c.waiting {
		c.answers[peer] = err
	}
	return c.answers
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
	c.answers[peer] = err
	if len(c.waiting) == 0 {
		delete(cs.own, id)
		c.done(c.answers)
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
	owed := &owedConfirm{asked: map[store.ID]edict{}, missing: map[store.ID]bool{}, until: e.now().Add(within)}
	for _, entry := range c.Entries {
		id := nameID(entry.Name)
		owed.asked[id], owed.missing[id] = edict{revisionOf(entry.Revision), entry.Deleted}, true
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
		return cmp.Or(cmp.Compare(a.id, b.id), strings.Compare(a.peer, b.peer))
	})
	return keys
}

// advance takes out what is there, and when that is all waits for the gateway.
func (e *exchange) advance(key confirmKey, owed *owedConfirm) {
	for id := range owed.missing {
		heard, err := e.holds(id, owed.asked[id])
		if err != nil {
			e.answerConfirm(key, err)
			return
		}
		if heard {
			delete(owed.missing, id)
		}
	}
	if len(owed.missing) > 0 {
		return
	}
	owed.obeying = true
	seq, within := e.snapshot.Seq(), owed.until.Sub(e.now())
	ids := slices.SortedFunc(maps.Keys(owed.asked), store.ID.Compare)
	fits := e.spawn(func(ctx context.Context) func(context.Context) {
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		var err error
		if e.parts.InForce != nil {
			err = e.parts.InForce(ctx, seq, ids)
		}
		return func(context.Context) { e.answerConfirm(key, cmp.Or(err, e.holdsAll(owed))) }
	})
	if !fits {
		e.answerConfirm(key, errors.New("too much is under way there"))
	}
}

// holds tells whether a version was heard of here, and if so why it is not the one that
// holds: what was made in its knowledge is as good, what was made without has won over it.
func (e *exchange) holds(id store.ID, asked edict) (heard bool, err error) {
	v := e.have.versions[id]
	switch {
	case v == nil:
		return false, nil
	case v.carried != nil && (v.knows(asked.revision) || v.revision.Compare(asked.revision) > 0):
		return true, fmt.Errorf("%s is of a newer version of Sluice than it: kept, and not in force there", id)
	case !v.knows(asked.revision):
		return false, nil
	case v.carried != nil || v.revision == asked.revision:
		return true, nil
	case lostIn(v.object, asked.revision):
		return true, fmt.Errorf("%s: %w", id, errOutdone)
	case asked.deleted && !v.object.Deleted && v.object.Owner.File != "":
		return true, fmt.Errorf("%s is not deleted: %s declares it", id, v.object.Owner.File)
	case asked.deleted && !v.object.Deleted:
		return true, fmt.Errorf("%s is there again since", id)
	case v.object.Deleted && !asked.deleted:
		return true, fmt.Errorf("%s has been deleted since", id)
	}
	return true, nil
}

// lostIn tells whether a version of that revision lost to what o has not seen: it is among
// the lost versions, or was let go of for later ones.
func lostIn(o *store.Object, r store.Revision) bool {
	return slices.ContainsFunc(o.Lost, func(lost *store.Object) bool { return lost.Revision.Compare(r) >= 0 })
}

// holdsAll is why not all that was asked for holds here any more, or nil.
func (e *exchange) holdsAll(owed *owedConfirm) error {
	e.follow()
	for _, id := range slices.SortedFunc(maps.Keys(owed.asked), store.ID.Compare) {
		heard, err := e.holds(id, owed.asked[id])
		if err != nil {
			return err
		}
		if !heard {
			return fmt.Errorf("%s is not there any more", id)
		}
	}
	return nil
}

// refused tells those that wait for an object that it was not taken.
func (cs *confirms) refused(e *exchange, from string, id store.ID, err error) {
	for _, key := range cs.owedKeys() {
		if key.peer == from && cs.owed[key].missing[id] {
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
	e.missAway()
	now := e.now()
	for _, id := range slices.Sorted(maps.Keys(e.confirms.own)) {
		switch c := e.confirms.own[id]; {
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

// missAway ends the waits for those that membership does not have any more, also when the
// exchange has never known them.
func (e *exchange) missAway() {
	if len(e.confirms.own)+len(e.keyAsks.open) == 0 {
		return
	}
	live := map[string]bool{}
	for _, id := range e.others() {
		live[id] = true
	}
	for id, c := range e.confirms.own {
		for peer := range c.waiting {
			if !live[peer] {
				e.confirms.settle(id, peer, errAway)
			}
		}
	}
	for id, ask := range e.keyAsks.open {
		for peer := range ask.waiting {
			if !live[peer] {
				e.keyAsks.settle(id, peer, keyReply{Err: errGone})
			}
		}
	}
}
