package upstream

import (
	"log/slog"
	"time"
)

// What is logged of changes of state is bounded: a thousand endpoints may change
// together, and one may do so ten times a second.
const (
	maxTold   = 100                    // lines at once
	toldEvery = 100 * time.Millisecond // one more line each
)

// told is how many changes of state may still be logged.
type told struct {
	lines int
	since time.Time // lines was last filled up
	left  int       // changes that have not been logged since
}

// spend reports whether one more line may be written.
func (t *told) spend(now time.Time) bool {
	if more := int(now.Sub(t.since) / toldEvery); more > 0 {
		t.lines, t.since = min(t.lines+more, maxTold), now
	}
	if t.lines == 0 {
		t.left++
		return false
	}
	t.lines--
	return true
}

// line is what is to be logged of an endpoint, once no lock is held.
type line struct {
	level   slog.Level
	message string
	attrs   []slog.Attr
}

// write logs lines. Whoever takes them may be slow: nobody is to wait for it.
func (p *Pool) write(lines ...*line) {
	for _, l := range lines {
		if l != nil {
			p.log.LogAttrs(p.ctx, l.level, l.message, l.attrs...)
		}
	}
}

// tell is what is to be logged of what has become of an endpoint, nil when nothing is.
// That it cannot be reached is told where that is found out. The caller holds its mu.
func (p *Pool) tell(e *Endpoint, was, why string) *line {
	level, message := slog.LevelInfo, ""
	switch ill := was == StateDown || was == StateUnhealthy || was == StateEjected || was == StateStalled; {
	case e.state == StateUnhealthy && was == StateNew && !e.health.known:
		return nil // as it begins
	case e.state == StateUnhealthy:
		level, message = slog.LevelWarn, "endpoint found unhealthy"
	case e.state == StateEjected:
		level, message = slog.LevelWarn, "endpoint ejected"
	case e.state == StateStalled:
		level, message = slog.LevelWarn, "endpoint fell silent"
	case e.state == StateDraining:
		message = "endpoint drained"
	case ill && (e.state == StateHealthy || e.state == StateWarming || e.state == StateNew):
		message = "endpoint came back"
	default:
		return nil
	}
	p.telling.Lock()
	now := time.Now()
	may := p.told.spend(now)
	left := p.told.left
	if may {
		p.told.left = 0
	}
	p.telling.Unlock()
	if !may {
		return nil
	}
	attrs := []slog.Attr{slog.String("backend", e.id.backend), slog.String("addr", e.id.address), slog.String("was", was)}
	if why != "" {
		attrs = append(attrs, slog.String("why", why))
	}
	if left > 0 {
		attrs = append(attrs, slog.Int("left_out", left))
	}
	return &line{level, message, attrs}
}

// unreached is the line of a dial in vain, the first in a row.
func (e *Endpoint) unreached(err error) *line {
	return &line{slog.LevelWarn, "endpoint not reached", []slog.Attr{
		slog.String("backend", e.id.backend), slog.String("addr", e.id.address), slog.Any("error", err),
	}}
}
