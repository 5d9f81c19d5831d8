package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"

	clusterv1 "sluice/cluster/v1"
)

// maxKeyAsks bounds how many changes of keys are under way.
const maxKeyAsks = 16

var (
	// errKeyless is of a node that cannot change its keys.
	errKeyless = errors.New("it has no keys")
	// errGone is of a node that was asked, and errNotAsked of one that was not.
	errGone     = errors.New("it does not live any more")
	errNotAsked = errors.New("it was not asked: it has joined meanwhile")
)

// keyAsks are the questions about keys that peers have not answered yet.
type keyAsks struct {
	seq  uint64
	open map[uint64]*keyAsk
}

type keyAsk struct {
	waiting map[string]bool
	answers map[string]keyReply
	done    func(map[string]keyReply) // called once
}

func newKeyAsks() keyAsks { return keyAsks{open: map[uint64]*keyAsk{}} }

// askKeys has all peers that live, whether the exchange knows them yet or not, do the same
// to their keys. It returns a number for giveUpKeys.
func (e *exchange) askKeys(verb keyVerb, key string, done func(map[string]keyReply)) uint64 {
	peers := e.others()
	if len(peers) == 0 {
		done(nil)
		return 0
	}
	if n := len(e.keyAsks.open); n >= maxKeyAsks {
		done(noKeysOf(peers, fmt.Errorf("it was not asked: %d changes of keys are under way, limit %d", n, maxKeyAsks)))
		return 0
	}
	if e.keyAsks.seq == 0 { // no number is one of this node's life before
		e.keyAsks.seq = e.rand.Uint64()
	}
	e.keyAsks.seq = max(e.keyAsks.seq+1, 1)
	id := e.keyAsks.seq
	ask := &keyAsk{waiting: map[string]bool{}, answers: map[string]keyReply{}, done: done}
	e.keyAsks.open[id] = ask
	for _, peer := range peers {
		ask.waiting[peer] = true
		e.send(peer, &clusterv1.Message{Body: &clusterv1.Message_KeyRequest{
			KeyRequest: &clusterv1.KeyRequest{Id: id, Verb: wireVerb(verb), Key: key},
		}})
	}
	return id
}

func noKeysOf(peers []string, err error) map[string]keyReply {
	all := map[string]keyReply{}
	for _, id := range peers {
		all[id] = keyReply{Err: err}
	}
	return all
}

// giveUpKeys returns the answers so far, with err for those that have not answered.
func (e *exchange) giveUpKeys(id uint64, err error) map[string]keyReply {
	ask := e.keyAsks.open[id]
	if ask == nil {
		return nil
	}
	delete(e.keyAsks.open, id)
	for peer := range ask.waiting {
		ask.answers[peer] = keyReply{Err: err}
	}
	return ask.answers
}

// answered takes what a peer says.
func (k *keyAsks) answered(peer string, r *clusterv1.KeyResponse) {
	reply := keyReply{Keys: r.Keys, Warning: r.Warning}
	if r.Error != "" {
		reply.Err = errors.New(r.Error)
	}
	k.settle(r.Id, peer, reply)
}

func (k *keyAsks) settle(id uint64, peer string, reply keyReply) {
	ask := k.open[id]
	if ask == nil || !ask.waiting[peer] {
		return
	}
	delete(ask.waiting, peer)
	ask.answers[peer] = reply
	if len(ask.waiting) == 0 {
		delete(k.open, id)
		ask.done(ask.answers)
	}
}

// lost ends the questions to a peer that does not live any more.
func (k *keyAsks) lost(peer string) {
	for id := range k.open {
		k.settle(id, peer, keyReply{Err: errGone})
	}
}

// answerKeys does to this node's keys what a peer asks. It may write a file, so it runs
// beside the exchange.
func (e *exchange) answerKeys(from string, r *clusterv1.KeyRequest) {
	answer := func(reply keyReply) {
		m := &clusterv1.KeyResponse{Id: r.Id, Warning: validText(reply.Warning)}
		for _, key := range reply.Keys {
			m.Keys = append(m.Keys, validText(key))
		}
		if reply.Err != nil {
			m.Error = textFor(reply.Err)
		}
		e.send(from, &clusterv1.Message{Body: &clusterv1.Message_KeyResponse{KeyResponse: m}})
	}
	verb, known := ownVerb(r.Verb)
	if e.keys == nil || !known {
		answer(keyReply{Err: errKeyless})
		return
	}
	fits := e.spawn(func(context.Context) func(context.Context) {
		reply := e.keys(verb, r.Key)
		return func(context.Context) { answer(reply) }
	})
	if !fits {
		answer(keyReply{Err: errors.New("too much is under way there")})
	}
}

var wireVerbs = [...]clusterv1.KeyVerb{
	keyList: clusterv1.KeyVerb_KEY_VERB_LIST, keyAdd: clusterv1.KeyVerb_KEY_VERB_ADD,
	keyUse: clusterv1.KeyVerb_KEY_VERB_USE, keyRemove: clusterv1.KeyVerb_KEY_VERB_REMOVE,
}

func wireVerb(verb keyVerb) clusterv1.KeyVerb { return wireVerbs[verb] }

func ownVerb(wire clusterv1.KeyVerb) (keyVerb, bool) {
	for verb, w := range wireVerbs {
		if w == wire {
			return keyVerb(verb), true
		}
	}
	return 0, false
}

// validText is a text that a message may have.
func validText(s string) string { return strings.ToValidUTF8(s, "?") }
