package store

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
	switch {
	case theirs == nil:
		return mine, MergeMine
	case mine == nil:
		return theirs, MergeTheirs
	}
	outcome = stand(mine, theirs)
	winner, loser := mine, theirs
	if outcome.theirs() {
		winner, loser = theirs, mine
	}
	lost := joinLost(winner, loser)
	sameLost := equalVersions(lost, winner.Lost)
	if sameLost && winner.Vector.covers(loser.Vector) {
		return winner, outcome
	}
	merged := winner.copy()
	merged.Vector = winner.Vector.union(loser.Vector)
	if !sameLost {
		merged.Lost = lost
	}
	return merged, outcome
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
