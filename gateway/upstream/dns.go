package upstream

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/store"
)

const (
	// lookers is how many look-ups are made at a time.
	lookers = 2
	// firstLookers is how many before the first table is in force, which waits for them.
	firstLookers = 16
	// lookUpTimeout bounds one look-up with all of its questions.
	lookUpTimeout = 10 * time.Second
	// maxKeep is how long an answer is kept at most, whatever its records say: the
	// operator who has moved a service away from a TTL of a year is still there.
	maxKeep = time.Hour
	// minRefresh is how often a name is asked for at most, whatever a backend says.
	minRefresh = 10 * time.Millisecond
	// firstRetry is how soon a look-up that has failed is made again; it doubles up to
	// the Refresh of the backend.
	firstRetry = time.Second
	// maxNotes is how many things that are wrong with one answer are told of.
	maxNotes = 3
)

// Discovery is how the look-ups of one backend go.
type Discovery struct {
	At, Next  time.Time // of the last look-up, zero when there was none, and of the one to come
	Addresses int       // that the last good answer has brought
	Problem   string    // with the last look-up; empty when all is well
}

// found is one endpoint that a name stands for.
type found struct {
	address string // host:port
	name    string // that has the address, without the last dot: a certificate is in this name
	weight  uint32
}

// answer is a list of endpoints, ordered by their addresses. It does not change: another
// one has another pointer.
type answer struct{ found []found }

// finding is what one look-up has brought.
type finding struct {
	found []found
	keep  time.Duration // as long as the records live
	notes []string      // what of it was left out, and why
}

// resolver finds out what a name stands for. before is what it stood for last time.
type resolver interface {
	lookUp(ctx context.Context, d *store.DNS, before []found) (finding, error)
}

// lookup is the name of one backend. Its fields are guarded by Pool.mu.
type lookup struct {
	key      string
	dns      store.DNS
	answer   *answer // the last good one; nil before the first
	at, next time.Time
	problem  string
	failures int // in a row
	asking   bool
}

// discovery is what the pool has of the names of backends. Its fields are guarded by
// Pool.mu, but for what says otherwise.
type discovery struct {
	resolver resolver           // fixed before Run
	news     chan struct{}      // some answer is another one: see Pool.News
	wake     chan struct{}      // something is to be looked up sooner than was known
	lookups  map[string]*lookup // by the backend's key
	good     int64              // look-ups that were answered
	bad      int64              // and those that were not
}

func newDiscovery() discovery {
	return discovery{
		resolver: newNameClient(), lookups: make(map[string]*lookup),
		news: make(chan struct{}, 1), wake: make(chan struct{}, lookers),
	}
}

// News receives when a look-up has found other endpoints: another Prepare of the same
// set has them.
func (p *Pool) News() <-chan struct{} { return p.discovery.news }

// Discovery tells how the look-ups of a backend go; false when it has none.
func (p *Pool) Discovery(backend string) (Discovery, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.discovery.lookups[backend]
	if l == nil {
		return Discovery{}, false
	}
	d := Discovery{At: l.at, Next: l.next, Problem: l.problem}
	if l.answer != nil {
		d.Addresses = len(l.answer.found)
	}
	return d, true
}

// Discoveries calls f with those of all backends, for metrics.
func (p *Pool) Discoveries(f func(backend string, d Discovery)) {
	p.mu.Lock()
	keys := make([]string, 0, len(p.discovery.lookups))
	for key := range p.discovery.lookups {
		keys = append(keys, key)
	}
	p.mu.Unlock()
	slices.Sort(keys)
	for _, key := range keys {
		if d, ok := p.Discovery(key); ok {
			f(key, d)
		}
	}
}

// LookUps counts those that were answered, and those that were not.
func (p *Pool) LookUps() (good, bad int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.discovery.good, p.discovery.bad
}

// answerOf is what the name of a backend stands for, as far as is known. A backend that
// is given another name keeps the endpoints of the one before until that is answered, and
// one that is given its first name those that it had declared. The caller holds mu.
func (p *Pool) answerOf(spec *store.Backend) *answer {
	if spec.Spec.DNS == nil {
		return nil
	}
	if l := p.discovery.lookups[spec.Key()]; l != nil {
		return l.answer
	}
	before := p.known[spec.Key()]
	if before == nil || len(before.spec.Spec.Endpoints) == 0 {
		return nil
	}
	a := new(answer)
	for _, e := range before.spec.Spec.Endpoints {
		if e.Weight > 0 {
			a.found = append(a.found, found{address: e.Address, weight: e.Weight})
		}
	}
	return a
}

// follow has the names looked up that the backends of a plan have. The caller holds mu.
func (p *Pool) follow(plan *Plan) {
	d := &p.discovery
	for key, k := range plan.known {
		if k == nil || k.spec.Spec.DNS == nil {
			delete(d.lookups, key)
			continue
		}
		l, dns := d.lookups[key], *k.spec.Spec.DNS
		switch {
		case l == nil:
			d.lookups[key] = &lookup{key: key, dns: dns, answer: k.answer, next: time.Now()}
			d.rouse()
		case l.dns != dns:
			l.dns, l.next, l.failures = dns, time.Now(), 0
			d.rouse()
		}
	}
}

// rouse has a goroutine look at what is due. It does not block.
func (d *discovery) rouse() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// LookUpFirst makes the look-ups that have never been made, for at most d, and reports
// whether any was answered. It is for the time before Run.
func (p *Pool) LookUpFirst(d time.Duration) (answered bool) {
	ctx, cancel := context.WithTimeout(p.ctx, d)
	defer cancel()
	var wg sync.WaitGroup
	for range firstLookers {
		wg.Go(func() {
			for ctx.Err() == nil {
				l, a, _ := p.nextLookup(time.Time{})
				if l == nil {
					return
				}
				p.look(ctx, l, a)
			}
		})
	}
	wg.Wait()
	good, _ := p.LookUps()
	return good > 0
}

// lookUp makes look-ups as they fall due, until the pool ends.
func (p *Pool) lookUp() {
	for p.ctx.Err() == nil {
		l, a, wait := p.nextLookup(time.Now())
		if l == nil {
			p.discovery.doze(p.ctx, wait)
			continue
		}
		p.discovery.rouse() // there may be more for the others
		p.look(p.ctx, l, a)
	}
}

// doze waits for d, or until roused; a negative d has no end.
func (d *discovery) doze(ctx context.Context, wait time.Duration) {
	var due <-chan time.Time
	if wait >= 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
	case <-due:
	case <-d.wake:
	}
}

// ask is what one look-up is to find out.
type ask struct {
	dns    store.DNS
	before []found
}

// nextLookup takes the one that has been due for longest. When none is, it says how long
// that will be so, negative for until something changes. With a zero time, those are due
// that were never made.
func (p *Pool) nextLookup(now time.Time) (l *lookup, a ask, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.discovery.lookups {
		if other.asking || now.IsZero() && !other.at.IsZero() {
			continue
		}
		if l == nil || other.next.Before(l.next) {
			l = other
		}
	}
	switch {
	case l == nil:
		return nil, ask{}, -1
	case !now.IsZero() && l.next.After(now):
		return nil, ask{}, l.next.Sub(now)
	}
	l.asking = true
	a.dns = l.dns
	if l.answer != nil {
		a.before = l.answer.found
	}
	return l, a, 0
}

// look makes one look-up and notes what came of it.
func (p *Pool) look(ctx context.Context, l *lookup, a ask) {
	bounded, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	f, err := p.discovery.resolver.lookUp(bounded, &a.dns, a.before)
	if err == nil {
		f.choose(cmp.Or(a.dns.MaxEndpoints, store.DefaultMaxEndpoints), p.isOwn)
		if len(f.found) == 0 {
			err = errors.New(strings.Join(append([]string{"no address is left"}, f.notes...), "; "))
		}
	}
	p.note(ctx, l, &a.dns, &f, err)
}

// isOwn tells whether an address is the gateway's own: RPCs would go round for ever.
func (p *Pool) isOwn(a netip.AddrPort) bool { return p.Own != nil && p.Own(a) }

// note records how a look-up went.
func (p *Pool) note(ctx context.Context, l *lookup, asked *store.DNS, f *finding, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := &p.discovery
	l.asking = false
	if d.lookups[l.key] != l || l.dns != *asked || ctx.Err() != nil && err != nil {
		d.rouse() // nobody wants to know any more, or it was cut short
		return
	}
	now, before := time.Now(), l.problem
	refresh := max(cmp.Or(time.Duration(asked.Refresh), store.DefaultRefresh), minRefresh)
	l.at = now
	if err != nil {
		d.bad++
		l.failures++
		l.problem = failedLookup(asked, l.answer, err)
		l.next = now.Add(retryAfter(l.failures, refresh))
	} else {
		d.good++
		l.failures, l.problem = 0, strings.Join(f.notes, "; ")
		l.next = now.Add(keepFor(f.keep, refresh))
		if l.answer == nil || !slices.Equal(l.answer.found, f.found) {
			p.log.Info("endpoints found by dns", "backend", l.key, "name", nameOf(asked), "addresses", len(f.found))
			l.answer = &answer{f.found}
			select {
			case d.news <- struct{}{}:
			default:
			}
		}
	}
	switch {
	case l.problem == before:
	case l.problem == "":
		p.log.Info("dns answers again", "backend", l.key, "name", nameOf(asked))
	default:
		p.log.Warn("dns look-up not as it should be", "backend", l.key, "name", nameOf(asked), "problem", l.problem)
	}
}

// failedLookup says what is wrong, and what holds meanwhile.
func failedLookup(d *store.DNS, last *answer, err error) string {
	text := "looking up " + strconv.Quote(nameOf(d)) + ": " + err.Error()
	if last != nil {
		text += "; the last good answer is kept"
	}
	return text
}

func nameOf(d *store.DNS) string { return cmp.Or(d.Name, d.SRV) }

// keepFor is how long an answer is good whose records live for ttl: no shorter than
// refresh, and up to a tenth longer, so that gateways do not all ask at once.
func keepFor(ttl, refresh time.Duration) time.Duration {
	d := max(min(ttl, maxKeep), refresh)
	return d + rand.N(d/10+1)
}

// retryAfter is the pause after so many failures in a row.
func retryAfter(failures int, refresh time.Duration) time.Duration {
	d := min(firstRetry<<min(failures-1, 12), refresh)
	return d/2 + rand.N(d/2+1)
}

// choose leaves the endpoints that can be used, ordered, and at most limit of them: the
// same ones whatever the order in which they came.
func (f *finding) choose(limit int, own func(netip.AddrPort) bool) {
	slices.SortFunc(f.found, func(a, b found) int { return strings.Compare(a.address, b.address) })
	kept := f.found[:0]
	for _, e := range f.found {
		at, err := netip.ParseAddrPort(e.address)
		switch {
		case err != nil || at.Port() == 0 || at.Addr().IsUnspecified() || at.Addr().IsMulticast():
			f.remark(strconv.Quote(e.address) + " is no address of a backend: left out")
		case own(at):
			f.remark(strconv.Quote(e.address) + " is the gateway itself: left out")
		case len(kept) > 0 && kept[len(kept)-1].address == e.address:
			kept[len(kept)-1].weight = max(kept[len(kept)-1].weight, e.weight)
		default:
			kept = append(kept, e)
		}
	}
	if len(kept) > limit {
		f.remark(strconv.Itoa(len(kept)) + " addresses came, the limit is " + strconv.Itoa(limit) + ": the others are left out")
		kept = kept[:limit]
	}
	f.found = slices.Clip(kept)
}

// remark notes what was left out, up to a number.
func (f *finding) remark(text string) {
	switch n := len(f.notes); {
	case n < maxNotes:
		f.notes = append(f.notes, text)
	case n == maxNotes:
		f.notes = append(f.notes, "and more of the kind")
	}
}
