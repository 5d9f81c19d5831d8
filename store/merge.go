package store

import "maps"

// Outcome is how two versions of one object stand to each other.
type Outcome int

// The outcomes of Merge.
const (
	MergeSame         Outcome = iota // they are one version
	MergeMine                        // mine was made in the knowledge of theirs, or says the same later
	MergeTheirs                      // theirs was made in the knowledge of mine, or says the same later
	MergeConflictMine                // made unknown to each other: mine is the later one
	MergeConflictTheirs
)

var outcomeNames = [...]string{"same", "mine", "theirs", "conflict, mine", "conflict, theirs"}

func (o Outcome) String() string { return outcomeNames[o] }

// Conflict tells whether one of the two changes is lost.
func (o Outcome) Conflict() bool { return o == MergeConflictMine || o == MergeConflictTheirs }

// theirs tells whether it is theirs that wins.
func (o Outcome) theirs() bool { return o == MergeTheirs || o == MergeConflictTheirs }

// Merge says which of two versions of one object holds, whoever asks: a successor
// wins, and of two that had not seen each other the one of the higher revision. The
// winner has seen what both had, and has the loser among its Lost versions when the
// loser said something else. A tombstone is a version like any other. Either may
// be nil: there is none.
//
// Because a revision is higher than all that it has seen, the order of merging does
// not matter, nor does doing it twice.
func Merge(mine, theirs *Object) (winner *Object, outcome Outcome) {
	return mergeWithin(mine, theirs, maxPast)
}

// mergeWithin is Merge with a winner that remembers the latest so many nodes that it has
// seen.
func mergeWithin(mine, theirs *Object, most int) (winner *Object, outcome Outcome) {
	switch {
	case theirs == nil:
		return mine.within(most), MergeMine
	case mine == nil:
		return theirs.within(most), MergeTheirs
	}
	outcome = stand(mine, theirs)
	winner, loser := mine, theirs
	if outcome.theirs() {
		winner, loser = theirs, mine
	}
	lost, past := joinLost(winner, loser), winner.Vector
	if !past.covers(loser.Vector) {
		past = past.union(loser.Vector)
	}
	return winner.with(lost, past.latest(most, lost)), outcome
}

// within is the version with the latest so many nodes that it has seen.
func (o *Object) within(most int) *Object {
	if o == nil {
		return nil
	}
	return o.with(o.Lost, o.Vector.latest(most, o.Lost))
}

// with is the version with other ones that lost to it, and another past; the version itself
// when it has them already.
func (o *Object) with(lost []*Object, past Vector) *Object {
	sameLost := equalVersions(lost, o.Lost)
	if sameLost && maps.Equal(past, o.Vector) {
		return o
	}
	c := o.copy()
	c.Vector = past
	if !sameLost {
		c.Lost = lost
	}
	return c
}

// stand is how two versions stand to each other.
func stand(mine, theirs *Object) Outcome {
	seenMine, seenTheirs := theirs.Vector.Seen(mine.Revision), mine.Vector.Seen(theirs.Revision)
	winner, loser := theirs, mine
	later := mine.Revision.Compare(theirs.Revision) > 0
	if later {
		winner, loser = mine, theirs
	}
	switch {
	case mine.Revision == theirs.Revision:
		return MergeSame
	case seenTheirs && !seenMine:
		return MergeMine
	case seenMine && !seenTheirs:
		return MergeTheirs
	case maxLost(mine.ID.Kind) == 0 || loser.yields(winner):
		if later {
			return MergeMine
		}
		return MergeTheirs
	case later:
		return MergeConflictMine
	default:
		return MergeConflictTheirs
	}
}
