package upstream

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/gateway/balance"
	"sluice/store"
)

// group is the endpoints of one backend, whatever table has them: what becomes of one
// is a matter of the others, too. It lives as long as tables mention the backend.
type group struct {
	now   atomic.Pointer[Backend] // as of the last Commit
	limit atomic.Uint32           // failures in a row that eject; zero ejects nobody

	mu       sync.Mutex              // guards the fields below, and who is ejected; taken before an endpoint's own
	outliers *store.OutlierDetection // nil ejects nobody
	compared time.Time               // when success rates were last compared
}

// regroup has the group of a backend go on with the endpoints of its next table. The
// caller holds mu.
func (p *Pool) regroup(key string, b *Backend) {
	g := p.groups[key]
	if b == nil {
		delete(p.groups, key)
		return
	}
	if g == nil {
		g = new(group)
		p.groups[key] = g
	}
	g.put(b)
}

// put makes b what the group is. Whoever is ejected stays so, unless nobody is to be, or
// too few others are left.
func (g *group) put(b *Backend) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.outliers = nil
	if b.spec != nil {
		g.outliers = b.spec.Spec.Outliers()
	}
	g.limit.Store(0)
	if g.outliers != nil {
		g.limit.Store(uint32(g.outliers.ConsecutiveErrors))
	}
	inUse := b.inUse()
	for _, e := range b.Endpoints {
		e.join(g, inUse)
		e.timed.Store(b.Timed())
		if g.outliers == nil {
			g.pardon(e)
		}
	}
	g.now.Store(b)
	g.relent(time.Now())
	g.refresh() // for what has changed since the picker was made
}

// inUse tells whether some endpoint is connected, so that others can be given time to be.
func (b *Backend) inUse() bool {
	for _, e := range b.Endpoints {
		if e.Weight() > 0 && e.connected() {
			return true
		}
	}
	return false
}

// refresh tells the picker that conditions have changed.
func (g *group) refresh() {
	if b := g.now.Load(); b != nil {
		b.Refresh()
	}
}

// connected tells whether an RPC would find a connection.
func (e *Endpoint) connected() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.Condition()&balance.Down == 0 && !e.upSince.IsZero() && (e.http != nil || len(*e.live.Load()) > 0)
}

// join makes the endpoint one of the group. One that is new to a backend in use is
// connected before it gets an RPC: until then others have them.
func (e *Endpoint) join(g *group, inUse bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.group.Store(g)
	fresh := e.upSince.IsZero() && e.dialling == 0 && e.down == nil && e.settings.weight > 0
	if !inUse || !fresh || e.retired || e.pool.ctx.Err() != nil {
		return
	}
	e.mark(balance.Down, true)
	if e.http != nil {
		e.probe(0)
	} else {
		e.connect()
	}
}

// mark says that a condition holds, or holds no more, and tells who picks. The caller
// holds mu.
func (e *Endpoint) mark(c balance.Condition, on bool) {
	before := e.Condition()
	changed := e.SetCondition(c, on)
	e.observe()
	if !changed {
		return
	}
	now := time.Now()
	same := before == balance.Stalled // it is what it was, and warm
	if c == balance.Down && !on {
		if e.missed {
			e.ejection.hasten(now)
		} else {
			same = same || before == balance.Down && now.Sub(e.parted) < steady
		}
		e.missed = false
		e.health.hasten()
	}
	if e.Usable() && !same {
		e.rise(now)
	}
	if g := e.group.Load(); g != nil {
		g.refresh()
	}
	e.pool.stir()
}

// rise begins slow start. The caller holds mu.
func (e *Endpoint) rise(now time.Time) {
	if e.settings.slowStart == nil {
		return
	}
	e.risen = now
	e.ramp(now)
}

// ramp gives the endpoint the share that is due to it now, and reports whether it will
// be more. The caller holds mu.
func (e *Endpoint) ramp(now time.Time) (restless bool) {
	if e.risen.IsZero() {
		return false
	}
	scale := 1.0
	if s := e.settings.slowStart; s != nil {
		scale = balance.Ramp(now.Sub(e.risen), time.Duration(s.Window), s.Exponent, float64(s.MinWeight)/100)
	}
	e.SetScale(scale)
	if scale >= 1 {
		e.risen = time.Time{}
	}
	return scale < 1
}

// look does what is due of the group's endpoints, and reports whether more will be soon,
// and what is to be logged.
func (g *group) look(now time.Time, sample bool) (restless bool, news []*line) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.now.Load()
	for _, e := range b.Endpoints {
		restless = g.lookAt(e, now) || restless
		more, told := e.look(now, sample)
		restless, news = restless || more, append(news, told...)
	}
	g.compare(b, now)
	return restless, news
}
