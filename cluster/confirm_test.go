package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/store"
)

// failed are those that do not obey.
func (c confirmation) failed() confirmation {
	failed := maps.Clone(c)
	maps.DeleteFunc(failed, func(_ string, err error) bool { return err == nil })
	return failed
}

// confirmed writes at a node and lets so much time pass; nil is no answer.
func (n *simNode) confirmed(changes []store.Change, within time.Duration) (came confirmation) {
	n.exchange.confirm(changes, 5*time.Second, func(c confirmation) { came = c })
	n.sim.run(within)
	return came
}

// Whom membership has is asked, though the exchange has not been told of him.
func TestExchangeConfirmsWithWhomItDoesNotKnowYet(t *testing.T) {
	sim := openSimulation(t, 3)
	n := sim.nodes[0]
	n.live = nil
	n.exchange.setLive(t.Context())
	n.live = []string{sim.nodes[1].id, sim.nodes[2].id, "zzzzzzzz"}
	came := n.confirmed(n.apply(simBackend("b0", "x")).Changes, 6*time.Second)
	if len(came) != 3 || !errors.Is(came["zzzzzzzz"], context.DeadlineExceeded) {
		t.Errorf("answers %v, want three and none of who is not there", came)
	}
	if sim.nodes[2].label("b0") != "x" && came[sim.nodes[2].id] == nil {
		t.Error("confirmed by who does not have it")
	}
}

// Who leaves meanwhile is named, and at once.
func TestExchangeConfirmNamesWhoIsGone(t *testing.T) {
	sim := openSimulation(t, 3)
	n, gone := sim.nodes[0], sim.nodes[2].id
	for _, known := range []bool{true, false} {
		sim.cut[2] = 1
		if !known {
			n.live = []string{sim.nodes[1].id}
			n.exchange.setLive(t.Context())
		}
		n.live = []string{sim.nodes[1].id, gone}
		changes := n.apply(simBackend("b0", fmt.Sprint("known-", known))).Changes
		var came confirmation
		n.exchange.confirm(changes, 5*time.Second, func(c confirmation) { came = c })
		sim.run(time.Second)
		if came != nil {
			t.Fatalf("answers %v of who cannot be reached", came)
		}
		n.live = []string{sim.nodes[1].id} // without a word to the exchange
		sim.run(time.Second)
		if err, asked := came[gone]; len(came) != 2 || !asked || !errors.Is(err, errAway) {
			t.Errorf("known %v: answers %v, want him named as gone", known, came)
		}
	}
}

// A version that has lost at once to one that had not seen it is obeyed by nobody.
func TestExchangeConfirmSaysWhatHasWon(t *testing.T) {
	sim := openSimulation(t, 2)
	a, b := sim.nodes[0], sim.nodes[1]
	a.apply(simBackend("b0", "old"))
	mustAgree(t, sim, 10*time.Second)
	b.offset = 5 * time.Second
	changes := a.apply(simBackend("b0", "mine")).Changes
	b.apply(simBackend("b0", "theirs"))
	came := a.confirmed(changes, time.Second)
	if err := came[b.id]; err == nil || !strings.Contains(err.Error(), "sluice conflicts") {
		t.Errorf("answers %v, want that another change has won", came)
	}
	// What was made in its knowledge is as good.
	changes = a.apply(simBackend("b0", "again")).Changes
	sim.run(time.Second)
	b.apply(simBackend("b0", "on top"))
	if came := a.confirmed(changes, time.Second); len(came) != 1 || came[b.id] != nil {
		t.Errorf("answers %v, want yes", came)
	}
	// A deletion that something else has outlived is none.
	changes = a.write(store.Txn{Ops: []store.Op{{ID: backendID("b0"), Delete: true}}}).Changes
	sim.run(time.Second)
	b.apply(simBackend("b0", "anew"))
	if came := a.confirmed(changes, time.Second); came[b.id] == nil {
		t.Errorf("answers %v, want that it is there again", came)
	}
}

// What comes while the gateway is waited for counts.
func TestExchangeConfirmLooksAgainWhenTheGatewayObeys(t *testing.T) {
	sim := newSimulation(t, 1, simTemplates(t, 2), simFolder(t))
	t.Cleanup(sim.close)
	a, b := sim.nodes[0], sim.nodes[1]
	sim.inForce = func(n *simNode) error {
		n.apply(simBackend("b0", "theirs"))
		sim.inForce = func(*simNode) error { return nil }
		return nil
	}
	sim.begin()
	changes := a.apply(simBackend("b0", "mine")).Changes
	changes = append(changes, a.write(store.Txn{Ops: []store.Op{{ID: backendID("b0"), Delete: true}}}).Changes...)
	if came := a.confirmed(changes[1:], time.Second); came[b.id] == nil {
		t.Errorf("answers %v of a deletion after which there was another edit", came)
	}
}

// Numbers are none of the life before: who answers that one late does not answer this one.
func TestExchangeNumbersBeginByChance(t *testing.T) {
	sim := openSimulation(t, 2)
	n := sim.nodes[0]
	changes := n.apply(simBackend("b0", "x")).Changes
	first := n.exchange.confirm(changes, time.Second, func(confirmation) {})
	keys := n.exchange.askKeys(keyList, "", func(map[string]keyReply) {})
	n.stop()
	n.start()
	sim.meet(0, time.Millisecond)
	sim.run(time.Second)
	if again := n.exchange.confirm(changes, time.Second, func(confirmation) {}); again == first || again < 1000 || first < 1000 {
		t.Errorf("the numbers of two lives are %d and %d", first, again)
	}
	if again := n.exchange.askKeys(keyList, "", func(map[string]keyReply) {}); again == keys || again < 1000 {
		t.Errorf("the numbers of questions about keys in two lives are %d and %d", keys, again)
	}
}

// A key is not changed on the word of some.
func TestExchangeAsksEachMemberForKeys(t *testing.T) {
	sim := openSimulation(t, 2)
	n := sim.nodes[0]
	n.live = []string{sim.nodes[1].id, "zzzzzzzz"} // one that the exchange was not told of
	for range maxKeyAsks {
		n.exchange.askKeys(keyList, "", func(map[string]keyReply) { t.Error("answered by who is not there") })
	}
	var answers map[string]keyReply
	n.exchange.askKeys(keyUse, "k", func(a map[string]keyReply) { answers = a })
	if len(answers) != 2 || answers["zzzzzzzz"].Err == nil || answers[sim.nodes[1].id].Err == nil {
		t.Errorf("with %d questions open the answers are %v, want an error of each", maxKeyAsks, answers)
	}
}

// stalled is a courier of a loop that is not run.
type stalled struct {
	silence
	more []string // live from the second look on
}

func (s *stalled) Live() []string {
	live := s.silence
	s.silence = append(live[:len(live):len(live)], s.more...)
	s.more = nil
	return live
}

// Whoever joins while keys are asked for has an answer, which says that he was not asked.
func TestLoopNamesWhoWasNotAskedForKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openLoop(t)
		l.courier = &stalled{silence{"aaaaaaaa"}, []string{"bbbbbbbb"}}
		l.keys = func(keyVerb, string) keyReply { return keyReply{Keys: []string{"00000000"}} }
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		answers := l.askKeys(ctx, keyList, "")
		if len(answers) != 3 || answers["aaaaaaaa"].Err == nil || !errors.Is(answers["bbbbbbbb"].Err, errNotAsked) {
			t.Errorf("answers %v", answers)
		}
	})
}

// Who is not known any more when the answers come is named all the same.
func TestClusterNamesWhoIsNotKnownAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openLoop(t, "aaaaaaaa")
		c := &Cluster{parts: l.parts, loop: l, membership: &membership{self: "self", log: slog.New(slog.DiscardHandler)}}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		changes := []store.Change{{ID: backendID("b0"), After: &store.Object{}}}
		if came := c.Confirm(ctx, changes); len(came.Confirmed) != 0 || len(came.Unconfirmed) != 1 || came.Unconfirmed[0].Member.ID != "aaaaaaaa" {
			t.Errorf("told %+v", came)
		}
		if answers := c.keyAnswers(map[string]keyReply{"aaaaaaaa": {Err: errGone}}); len(answers) != 1 || answers[0].Member.ID != "aaaaaaaa" {
			t.Errorf("told %+v", answers)
		}
	})
}
