package gateway

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"sluice/gateway/policy"
	"sluice/gateway/route"
	"sluice/store"
)

// guard is what stands before one backend: what all its RPCs have in common, from
// whatever rule they come. It outlives tables, as long as a rule names the backend, so
// that a change of configuration forgives nothing.
type guard struct {
	key    string         // of the backend
	budget *policy.Budget // of its retries, where no rule has its own
	bounds atomic.Pointer[bounds]

	retries [numRetryAnswers]atomic.Int64
	full    [numBounds]atomic.Int64 // RPCs that came over a bound
}

// bounds are the limits of a backend that has some. A nil field sets none.
type bounds struct {
	requests, pending, retries *policy.Concurrency
	gradient                   *policy.Gradient
	adaptive                   store.AdaptiveConcurrency // of gradient
}

// bound is one of them, as metrics name it.
type bound uint8

const (
	boundRequests bound = iota
	boundPending
	boundAdaptive
	numBounds
)

var boundNames = [numBounds]string{"requests", "pending", "adaptive"}

// retryAnswer is what became of the wish for another try, as metrics name it.
type retryAnswer uint8

const (
	retryAllowed retryAnswer = iota
	retryOverBudget
	retryOverLimit
	numRetryAnswers
)

var retryAnswerNames = [numRetryAnswers]string{"allowed", "budget", "limit"}

func newGuard(key string) *guard {
	return &guard{key: key, budget: policy.NewBudget(
		store.DefaultBudgetPercent, store.DefaultBudgetInterval, store.DefaultRetryCount, store.DefaultRetryInterval)}
}

// adopt puts limits in force, which may be nil. What is open counts against the new ones
// as it did against the old.
func (g *guard) adopt(l *store.BackendLimits) {
	before := g.bounds.Load()
	if before == nil {
		before = new(bounds)
	}
	if l == nil || *l == (store.BackendLimits{}) {
		g.bounds.Store(nil)
		return
	}
	now := &bounds{
		requests: adoptBound(before.requests, l.MaxRequests),
		pending:  adoptBound(before.pending, l.MaxPending),
		retries:  adoptBound(before.retries, l.MaxRetries),
	}
	switch a := l.AdaptiveConcurrency; {
	case a == nil:
	case before.gradient != nil && before.adaptive == *a:
		now.gradient, now.adaptive = before.gradient, *a
	default:
		now.gradient, now.adaptive = policy.NewGradient(a.MinLimit, a.MaxLimit, time.Now(), rand.Float64), *a
	}
	g.bounds.Store(now)
}

func adoptBound(before *policy.Concurrency, limit int) *policy.Concurrency {
	switch {
	case limit <= 0:
		return nil
	case before == nil:
		return policy.NewConcurrency(limit)
	}
	before.SetLimit(limit)
	return before
}

// gate is what stands before the RPCs of one rule that has limits, or a budget, of its
// own.
type gate struct {
	key     gateKey
	budget  *policy.Budget // nil: the backend's
	retry   *store.RetryConstraint
	rates   []rate        // those with a key first: who is over his own limit takes nothing from others
	limited *atomic.Int64 // RPCs that were turned away
}

// gateKey is the rule, as metrics name it.
type gateKey struct{ route, rule string }

// rate is one limit of a rule.
type rate struct {
	spec  store.RateLimit // without Key
	key   store.RateKey   // zero is one limit for all
	limit *policy.RateLimit
}

// newGate returns the gate of a rule, nil when it needs none. What stays as it was in the
// gate before, which may be nil, goes on where it stands. What a cluster has as a whole is
// divided as share says.
func newGate(key gateKey, t *store.Treatment, before *gate, share *policy.Share) *gate {
	if t.RetryConstraint == nil && len(t.RateLimits) == 0 {
		return nil
	}
	if before == nil {
		before = &gate{limited: new(atomic.Int64)}
	}
	g := &gate{key: key, limited: before.limited}
	if c := t.RetryConstraint; c != nil {
		if before.retry != nil && *before.retry == *c {
			g.budget = before.budget
		} else {
			g.budget = policy.NewBudget(c.Budget.Percent, time.Duration(c.Budget.Interval), c.MinRetryRate.Count, time.Duration(c.MinRetryRate.Interval)).
				Among(scoped(c.Scope, share))
		}
		g.retry = c
	}
	for _, keyed := range []bool{true, false} {
		for i := range t.RateLimits {
			if (t.RateLimits[i].Key != nil) == keyed {
				g.rates = append(g.rates, before.rate(&t.RateLimits[i], share))
			}
		}
	}
	g.key = key
	return g
}

// scoped is the share of a limit, nil when each gateway has all of it.
func scoped(scope store.LimitScope, share *policy.Share) *policy.Share {
	if scope != store.ClusterScope {
		return nil
	}
	return share
}

// SetPeers says how many gateways of the cluster live and take clients, this one included:
// so many share the limits that are the cluster's. It holds from the next RPC on, and waits for nobody.
func (g *Gateway) SetPeers(live int) { g.share.Set(live) }

// rate is the limit that l asks for: the one that is there already, or a new one.
func (g *gate) rate(l *store.RateLimit, share *policy.Share) rate {
	r := rate{spec: *l}
	r.spec.Key = nil
	if l.Key != nil {
		r.key = *l.Key
	}
	for _, was := range g.rates {
		if was.spec == r.spec && was.key == r.key {
			return was
		}
	}
	burst := l.Burst
	if burst == 0 {
		burst = l.Requests
	}
	r.limit = policy.NewRateLimit(l.Requests, time.Duration(l.Interval), burst, l.Key != nil).Among(scoped(l.Scope, share))
	return r
}

// requester is who an RPC comes from, as limits tell callers apart.
type requester struct {
	session *session
	header  route.Header // metadata first, where that is not the same
	hops    forwarding   // the request's own header
}

// address is the client's, as one that keys are made of; empty when nobody knows. Behind
// proxies that are believed it is what the first of them has said.
func (r *requester) address() string {
	if r.session.hops > 0 {
		first, _, _ := strings.Cut(lastHops(r.hops, r.session.hops), ",")
		if first = strings.TrimSpace(first); first != "" {
			return clientKey(first)
		}
	}
	if len(r.session.origin) == 0 {
		return ""
	}
	return clientKey(r.session.origin[0].Value)
}

// clientBits is how much of an address of IPv6 tells clients apart: one of them mostly has
// a whole /64 to choose addresses from (RFC 6177).
const clientBits = 64

// clientKey is the same for all spellings of an address: with a port or without, an
// address of IPv4 in IPv6, and all of one network of IPv6. What is no address, as a proxy
// may write, stands for itself.
func clientKey(said string) string {
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(said, "["), "]"))
	if err != nil {
		at, err := netip.ParseAddrPort(said)
		if err != nil {
			return said
		}
		addr = at.Addr()
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, clientBits).Masked().Addr().String()
}

// take counts an RPC against the rule's limits. If it is over one of them, it counts
// against none, and after is when another try may find room.
func (g *gate) take(now time.Time, from *requester) (ok bool, after time.Duration) {
	for i := range g.rates {
		r := &g.rates[i]
		if ok, after = r.limit.Take(now, r.value(from)); ok {
			continue
		}
		for _, taken := range g.rates[:i] {
			taken.limit.GiveBack(taken.value(from))
		}
		g.limited.Add(1)
		return false, after
	}
	return true, 0
}

// value is what the limit looks at of an RPC.
func (r *rate) value(from *requester) string {
	switch {
	case r.key.Header != "":
		value, _ := from.header.Get(r.key.Header)
		return value
	case r.key.ClientAddress:
		return from.address()
	}
	return ""
}

// entry is what an RPC holds of limits until it ends. Nil is of one that nothing bounds,
// as most are. It belongs to the RPC, and to its mutex.
type entry struct {
	requests *policy.Concurrency
	pending  *policy.Concurrency // while it waits for a connection
	retries  *policy.Concurrency // from its second try on
	gradient *policy.Gradient    // until its answer begins
	slot     policy.Slot
	began    time.Time
}

// enter lets an RPC that has been placed in, or says why it may not begin and, when that
// is known, after how long another may. Who has entered leaves, once.
func (g *Gateway) enter(t *target, now time.Time, from *requester) (e *entry, how outcome, after time.Duration) {
	if g.memory.Short() {
		return nil, shed, 0
	}
	if b := t.guard.bounds.Load(); b != nil {
		if e = t.guard.enter(b, now); e == nil {
			return nil, saturated, 0
		}
	}
	if t.gate != nil {
		if ok, after := t.gate.take(now, from); !ok {
			e.leave(0, limited)
			return nil, limited, after
		}
	}
	t.budget.Called(now)
	return e, served, 0
}

// enter is nil when the backend has as many RPCs as it may.
func (g *guard) enter(b *bounds, now time.Time) *entry {
	e := &entry{began: now}
	if b.requests != nil {
		if !b.requests.Acquire() {
			g.full[boundRequests].Add(1)
			return nil
		}
		e.requests = b.requests
	}
	if b.gradient != nil {
		slot, ok := b.gradient.Acquire(now)
		if !ok {
			g.full[boundAdaptive].Add(1)
			e.leave(0, saturated)
			return nil
		}
		e.gradient, e.slot = b.gradient, slot
	}
	return e
}

// answered notes that the answer begins: what comes after that takes as long as the two
// have to say to one another.
func (e *entry) answered() {
	if e == nil || e.gradient == nil {
		return
	}
	now := time.Now()
	e.gradient.Release(e.slot, now, now.Sub(e.began), true)
	e.gradient = nil
}

// leave gives back what is held at the RPC's end, given how long after its beginning that
// comes.
func (e *entry) leave(took time.Duration, how outcome) {
	if e == nil {
		return
	}
	if e.gradient != nil {
		e.gradient.Release(e.slot, e.began.Add(took), took, how == served || how == deadline || how == backendTimeout)
		e.gradient = nil
	}
	for _, held := range []**policy.Concurrency{&e.requests, &e.pending, &e.retries} {
		if *held != nil {
			(*held).Release()
			*held = nil
		}
	}
}

// wait counts an RPC that waits for a connection. It is false when as many do as may. It
// has to be called with the entry's owner's lock held, as resume.
func (g *guard) wait(e *entry) bool {
	if e == nil || e.pending != nil {
		return true
	}
	b := g.bounds.Load()
	if b == nil || b.pending == nil {
		return true
	}
	if !b.pending.Acquire() {
		g.full[boundPending].Add(1)
		return false
	}
	e.pending = b.pending
	return true
}

// resume ends that.
func (e *entry) resume() {
	if e != nil && e.pending != nil {
		e.pending.Release()
		e.pending = nil
	}
}

// retry tells whether an RPC may be sent once more, by the budget and by the limit of
// what the backend may have of such RPCs, and counts it. What the gateway asks itself is
// not sent again.
func (t *target) retry(now time.Time, e *entry) bool {
	if t.guard == nil {
		return false
	}
	answer := t.mayRetry(now, e)
	t.guard.retries[answer].Add(1)
	return answer == retryAllowed
}

// giveBack takes back a try that was allowed and not made. None of the RPC's is left but
// the first if last is set.
func (t *target) giveBack(now time.Time, e *entry, last bool) {
	t.budget.GiveBack(now)
	if last && e != nil && e.retries != nil {
		e.retries.Release()
		e.retries = nil
	}
}

func (t *target) mayRetry(now time.Time, e *entry) retryAnswer {
	b := t.guard.bounds.Load()
	bounded := b != nil && b.retries != nil && e != nil && e.retries == nil
	if bounded && !b.retries.Acquire() {
		return retryOverLimit
	}
	if !t.budget.Allow(now) {
		if bounded {
			b.retries.Release()
		}
		return retryOverBudget
	}
	if bounded {
		e.retries = b.retries
	}
	return retryAllowed
}
