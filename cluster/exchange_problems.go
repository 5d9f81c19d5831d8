package cluster

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// aheadFor is how long a clock that was ahead is named after its last revision that was
// refused.
const aheadFor = 5 * time.Minute

// stats are the counters so far.
func (e *exchange) stats() loopStats {
	return loopStats{
		Refused: e.refused.counted(), Merged: e.merged, Conflicts: e.conflicts,
		Comparisons: e.compares.begun, Carried: len(e.carrying),
	}
}

// problems are what an operator should know, in sentences.
func (e *exchange) problems() []string {
	var list []string
	for _, id := range slices.Sorted(maps.Keys(e.ahead)) {
		if e.now().Sub(e.ahead[id]) < aheadFor {
			list = append(list, fmt.Sprintf("node %s sends changes from a clock that is more than %s ahead of this node's: they are refused; set the clocks", id, maxAhead))
		}
	}
	for _, id := range e.live {
		if offset, _, known := e.peers[id].offset(); known && offset.Abs() > maxAhead {
			list = append(list, fmt.Sprintf("the clock of node %s is %s: changes are refused where it is behind", id, offsetText(offset)))
		}
	}
	list = append(list, e.doubleProblems()...)
	if e.staleness.stale && len(e.live) > 0 {
		list = append(list, fmt.Sprintf("this node was apart from its peers since %s, longer than deletions are remembered: it serves them nothing until it has compared with one of them",
			e.steps.heard.UTC().Format(time.RFC3339)))
	}
	return append(list, e.carriedProblems()...)
}

func offsetText(offset time.Duration) string {
	if offset < 0 {
		return (-offset).Round(time.Second).String() + " behind this node's"
	}
	return offset.Round(time.Second).String() + " ahead of this node's"
}
