package cluster

import (
	"log/slog"
	"time"

	"sluice/store"
)

const (
	// conflictPace is in which time maxConflictLines conflicts are named in the log; the
	// others are counted.
	conflictPace     = time.Minute
	maxConflictLines = 10
)

// conflictLog names in the log what two nodes have changed unknown to each other. It
// belongs to the exchange.
type conflictLog struct {
	log    *slog.Logger
	begun  time.Time // of the lines below, by the steady clock
	lines  int
	unsaid int
}

// add names a conflict that was taken in.
func (l *conflictLog) add(c store.Change, now time.Time) {
	l.tick(now)
	if l.lines == 0 {
		l.begun = now
	}
	if l.lines++; l.lines > maxConflictLines {
		l.unsaid++
		return
	}
	attrs := []any{"object", c.ID}
	if c.After != nil {
		attrs = append(attrs, "holds", c.After.Revision)
	}
	if c.Lost != nil {
		attrs = append(attrs, "lost", c.Lost.Revision)
	}
	l.log.Warn("two gateways have changed an object unknown to each other; the later change holds, see sluice conflicts", attrs...)
}

// tick counts those that were not named, when it is time.
func (l *conflictLog) tick(now time.Time) {
	if l.lines == 0 || now.Sub(l.begun) < conflictPace {
		return
	}
	if l.unsaid > 0 {
		l.log.Warn("two gateways changed more objects unknown to each other; see sluice conflicts", "count", l.unsaid)
	}
	l.lines, l.unsaid = 0, 0
}
