package cluster

import (
	"encoding/json"
	"time"

	"sluice/store"
)

const (
	// stepRecords says how this node stands to its peers: one row under stepKey, and one
	// for each peer that ever had the same.
	stepRecords = "cluster.step"
	stepKey     = "." // not the ID of a node
	// stepEvery is how often that is written down, and stepSoon when something has changed
	// since.
	stepEvery = 5 * time.Minute
	stepSoon  = 10 * time.Second
)

// step is a moment at which this node and another had the same: a digest of theirs came
// that was this node's own.
type step struct {
	Seq   uint64         `json:"seq"`   // of the store: what was changed here later, he may never have had
	Clock store.Revision `json:"clock"` // the highest that was known here
	At    time.Time      `json:"at"`    // by the wall clock
}

// steps is when this node heard of others, and when they had the same.
type steps struct {
	heard time.Time       // when a beat of any peer was last heard, by the wall clock; zero means never
	last  step            // with whomever
	since time.Time       // what this node lacks of all that there was since then was deleted; zero: it cannot say
	met   bool            // it was in step with somebody since it was started
	with  map[string]step // by peer

	due     map[string]bool // of with: changed, and not written down
	written time.Time       // by the steady clock
}

func newSteps() steps { return steps{with: map[string]step{}, due: map[string]bool{}} }

// stepRow is what is written of all peers together.
type stepRow struct {
	Heard time.Time `json:"heard"`
	Last  step      `json:"last"`
	Since time.Time `json:"since"`
}

// rememberSteps reads what was written down.
func (e *exchange) rememberSteps() {
	s := &e.steps
	err := e.store.Records(stepRecords).Scan("", func(key string, value []byte) bool {
		var row stepRow
		var with step
		switch {
		case key == stepKey && json.Unmarshal(value, &row) == nil:
			s.heard, s.last, s.since = row.Heard, row.Last, row.Since
		case isNode(key) && json.Unmarshal(value, &with) == nil:
			s.with[key] = with
		}
		return true
	})
	if err != nil {
		e.log.Warn("when this node was last in step with its peers is not known", "error", err)
	}
	if s.heard.Sub(e.wall()) > maxAhead { // a clock was set back: nobody knows how long ago that was
		s.heard = e.wall().Add(-staleAfter)
	}
}

// heardOf notes that a peer lives, and says so itself.
func (e *exchange) heardOf() {
	e.judgeStaleness()
	if !e.staleness.stale {
		e.steps.heard = e.wall()
	}
}

// inStep notes that a peer has what this node has. A node that was away is no witness.
func (e *exchange) inStep(p *peer) {
	s := &e.steps
	if e.staleness.stale || p.stale {
		return
	}
	now := step{e.snapshot.Seq(), e.store.Clock(), e.wall()}
	s.last, s.met = now, true
	s.since = earliest(s.since, p.since, now.At)
	if old := s.with[p.id]; old.Seq != now.Seq || old.Clock != now.Clock {
		s.due[p.id] = true
	}
	s.with[p.id] = now
	if len(s.with) > maxPeers {
		s.forgetOne()
	}
}

// forgetOne forgets the peer that was in step the longest ago.
func (s *steps) forgetOne() {
	var oldest string
	for id, with := range s.with {
		if oldest == "" || with.At.Before(s.with[oldest].At) {
			oldest = id
		}
	}
	delete(s.with, oldest)
	s.due[oldest] = true
}

// earliest is the first of the times that are not zero.
func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if first.IsZero() || !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	return first
}

// tickSteps writes down what is due.
func (e *exchange) tickSteps() {
	pause := stepEvery
	if len(e.steps.due) > 0 {
		pause = stepSoon
	}
	if !e.steps.heard.IsZero() && e.now().Sub(e.steps.written) >= pause {
		e.keepSteps()
	}
}

// keepSteps writes down when others were heard, and had the same.
func (e *exchange) keepSteps() {
	s := &e.steps
	s.written = e.now()
	err := e.store.Records(stepRecords).Update(func(tx store.RecordsTx) error {
		if err := putJSON(tx, stepKey, stepRow{s.heard, s.last, s.since}); err != nil {
			return err
		}
		for id := range s.due {
			if err := s.keepOne(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		e.log.Warn("when this node was last in step with its peers is not kept", "error", err)
		return
	}
	clear(s.due)
}

func (s *steps) keepOne(tx store.RecordsTx, id string) error {
	if with, known := s.with[id]; known {
		return putJSON(tx, id, with)
	}
	return tx.Delete(id)
}

func putJSON(tx store.RecordsTx, key string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Put(key, value)
}
