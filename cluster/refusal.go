package cluster

import (
	"log/slog"
	"maps"
	"time"
)

// refusalPause is between two lines of log about one peer and one reason.
const refusalPause = time.Minute

// maxRefusalKeys bounds what is remembered of who was named in the log.
const maxRefusalKeys = 1000

// refusalLog counts what was refused, and names it in the log once in a while. It belongs
// to one goroutine.
type refusalLog struct {
	log    *slog.Logger
	counts map[string]uint64
	said   map[refusalKey]*refusalSaid
}

type refusalKey struct{ peer, reason string }

type refusalSaid struct {
	at     time.Time
	unsaid int
}

func newRefusalLog(log *slog.Logger) *refusalLog {
	r := &refusalLog{log: log, counts: map[string]uint64{}, said: map[refusalKey]*refusalSaid{}}
	for _, reason := range refusedReasons {
		r.counts[reason] = 0
	}
	return r
}

// refuse counts and, at a pace, logs.
func (r *refusalLog) refuse(now time.Time, peer, reason string, err error) {
	r.counts[reason]++
	key := refusalKey{peer, reason}
	said := r.said[key]
	if said == nil {
		if len(r.said) >= maxRefusalKeys {
			clear(r.said)
		}
		said = &refusalSaid{}
		r.said[key] = said
	}
	if !said.at.IsZero() && now.Sub(said.at) < refusalPause {
		said.unsaid++
		return
	}
	r.log.Warn("message refused", "peer", peer, "reason", reason, "error", err, "since_last", said.unsaid)
	said.at, said.unsaid = now, 0
}

func (r *refusalLog) copy() map[string]uint64 { return maps.Clone(r.counts) }
