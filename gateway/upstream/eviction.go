package upstream

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"sluice/gateway/h2"
)

// ErrEvicted is what ends a request on a connection of HTTP/1 whose endpoint was to be
// empty by now.
var ErrEvicted = errors.New("the endpoint's grace is over")

// Evict ends what is open on the endpoint: streams by those who hear of them, and requests
// of HTTP/1, which know no other way, with their connections.
func (e *Endpoint) Evict(b *h2.Batch) {
	for _, c := range e.allConns() {
		c.Evict(b)
	}
	if e.http != nil {
		e.http.evict()
	}
}

// EachStream calls f with each stream that is open on the endpoint, without locks.
func (e *Endpoint) EachStream(f func(s *h2.Stream, k h2.Sink)) {
	for _, c := range e.allConns() {
		c.EachStream(f)
	}
}

func (e *Endpoint) allConns() []*h2.Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.conns)
}

// graces are those of drained endpoints that have one. They are guarded by Pool.mu.
type graces map[*Endpoint]*grace

// grace is when what is open on a drained endpoint has to be over.
type grace struct {
	end  time.Time
	told bool // the log says that it is
}

// grant notes the grace of an endpoint as of its newest settings. One that leaves the set
// while it is drained keeps its own.
func (g graces) grant(e *Endpoint, s *settings) {
	d := s.declared.Drain
	if d == nil || d.Grace == 0 {
		delete(g, e)
		return
	}
	end := d.Since.Add(time.Duration(d.Grace))
	if before := g[e]; before == nil || !before.end.Equal(end) {
		g[e] = &grace{end: end}
	}
}

// Overdue are the drained endpoints whose grace is over and that are not empty. next is
// when to ask again, negative for when something has changed.
func (p *Pool) Overdue(now time.Time) (list []*Endpoint, next time.Duration) {
	list, next, news := p.overdue(now)
	p.write(news...)
	return list, next
}

func (p *Pool) overdue(now time.Time) (list []*Endpoint, next time.Duration, news []*line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next = -1
	for e, g := range p.graces {
		wait := g.end.Sub(now)
		switch {
		case wait > 0:
		case e.Active() > 0:
			// An RPC that was looked up before the drain may come still, or wait for a
			// connection.
			list, wait = append(list, e), overdueAgain
			if !g.told {
				g.told = true
				news = append(news, &line{slog.LevelInfo, "grace of drained endpoint over", []slog.Attr{
					slog.String("backend", e.id.backend), slog.String("addr", e.id.address), slog.Int("open", e.Active()),
				}})
			}
		case p.endpoints[e.id] != e:
			delete(p.graces, e) // it is nobody's any more
			continue
		default:
			wait = overdueRest
		}
		if next < 0 || wait < next {
			next = wait
		}
	}
	return list, next, news
}

const (
	// overdueAgain is how soon an endpoint is looked at again that should have been empty.
	overdueAgain = 200 * time.Millisecond
	// overdueRest is the same for one that is.
	overdueRest = time.Second
)

// Drains receives when endpoints may have been drained.
func (p *Pool) Drains() <-chan struct{} { return p.drained }

// noteDrains tells who waits for Drains. The caller holds mu.
func (p *Pool) noteDrains() {
	if len(p.graces) == 0 {
		return
	}
	select {
	case p.drained <- struct{}{}:
	default:
	}
}
