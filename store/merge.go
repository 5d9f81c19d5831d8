package store

// Outcome is how two versions of one object stand to each other.
type Outcome int

// The outcomes of Merge.
const (
	MergeSame         Outcome = iota // they are one version
	MergeMine                        // mine was made in the knowledge of theirs
	MergeTheirs                      // theirs was made in the knowledge of mine
	MergeConflictMine                // made unknown to each other: mine is the later one
	MergeConflictTheirs
)

var outcomeNames = [...]string{"same", "mine", "theirs", "conflict, mine", "conflict, theirs"}

func (o Outcome) String() string { return outcomeNames[o] }

// Conflict tells whether one of the two changes is lost.
func (o Outcome) Conflict() bool { return o == MergeConflictMine || o == MergeConflictTheirs }

// Merge says which of two versions of one object holds, whoever asks: a successor
// wins, and of two that had not seen each other the one of the higher revision. The
// winner has seen what both had. A tombstone is a version like any other. Either may
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
	seenMine, seenTheirs := theirs.Vector.Seen(mine.Revision), mine.Vector.Seen(theirs.Revision)
	switch {
	case mine.Revision == theirs.Revision:
		outcome = MergeSame
	case seenTheirs && !seenMine:
		outcome = MergeMine
	case seenMine && !seenTheirs:
		outcome = MergeTheirs
	case mine.Revision.Compare(theirs.Revision) > 0:
		outcome = MergeConflictMine
	default:
		outcome = MergeConflictTheirs
	}
	winner = mine
	loser := theirs
	if outcome == MergeTheirs || outcome == MergeConflictTheirs {
		winner, loser = theirs, mine
	}
	if winner.Vector.covers(loser.Vector) {
		return winner, outcome
	}
	merged := winner.copy()
	merged.Vector = winner.Vector.union(loser.Vector)
	return merged, outcome
}
