package schema

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/store"
)

// Method is a method ("/shop.v1.Cart/Add") as a backend has it. When the backend has not
// told yet, it is asked, which takes 5 s at most. The error wraps ErrNoMethod or
// ErrNoSchema.
func (r *Registry) Method(ctx context.Context, backend, path string) (*Method, error) {
	m, err := r.view.Load().lookup(r.now(), backend, path)
	if m != nil || err != nil {
		return m, err
	}
	wait, cancel := context.WithTimeout(ctx, learnTimeout)
	defer cancel()
	if a := r.ask(backend); a != nil {
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, describing(backend, path, fmt.Errorf("%w: %w", ErrUnanswered, ctx.Err()))
		case <-wait.Done():
			return nil, describing(backend, path, fmt.Errorf("%w: %w", ErrUnanswered, errNoAnswer))
		}
	}
	m, err = r.view.Load().lookup(time.Time{}, backend, path)
	return m, err
}

// LearnSoon asks a backend that has told nothing yet, and does not wait for the answer.
func (r *Registry) LearnSoon(backend string) {
	if d, known := r.view.Load().backends[backend]; known && d.open(r.now()) {
		r.ask(backend)
	}
}

// errNoAnswer is why nothing is known yet of a backend that takes its time.
var errNoAnswer = fmt.Errorf("no answer of its reflection within %v", learnTimeout)

// Learn asks those of the backends that have told nothing yet, and waits for the answers,
// 5 s at most. It tells whether there is anything new. Who failed before is asked again
// only after a while.
func (r *Registry) Learn(ctx context.Context, backends []string) bool {
	v, now := r.view.Load(), r.now()
	var pending []*asking
	for _, key := range backends {
		if d, known := v.backends[key]; known && d.open(now) {
			if a := r.ask(key); a != nil {
				pending = append(pending, a)
			}
		}
	}
	if len(pending) == 0 {
		return false
	}
	wait, cancel := context.WithTimeout(ctx, learnTimeout)
	defer cancel()
	anything := false
	for _, a := range pending {
		select {
		case <-a.done:
			anything = anything || a.ok
		case <-wait.Done():
		}
	}
	return anything
}

// Reconnected tells that an endpoint of the backend came up anew, perhaps with another
// program: what the backend told is looked at again soon, and a failure is forgotten.
func (r *Registry) Reconnected(backend string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.backends[backend]; b != nil && r.doubt(b) {
		r.publish() // the schemas are the same
	}
}

// doubt lets a backend be asked again; if it told something before, then by itself. It
// tells whether views are to know.
func (r *Registry) doubt(b *backend) bool {
	soon := r.now().Add(settleTime)
	if rest := b.at.Add(restTime); rest.After(soon) {
		soon = rest
	}
	if b.learnt == nil && b.asking == nil {
		earlier := b.retry.After(soon)
		if earlier {
			b.retry, b.failures = soon, 0
		}
		return earlier
	}
	if b.again.IsZero() || b.again.After(soon) {
		b.again = soon
		r.wakeRun()
	}
	return false
}

// wakeRun lets Run look what is due.
func (r *Registry) wakeRun() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// askDue asks again those whose time has come. It returns how long it is until the next
// one's, an hour when there is none.
func (r *Registry) askDue() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	next := now.Add(time.Hour)
	for _, b := range r.backends {
		switch {
		case b.again.IsZero() || b.asking != nil:
		case !b.askable():
			b.again = time.Time{}
		case !b.again.After(now):
			r.begin(b)
		case b.again.Before(next):
			next = b.again
		}
	}
	return next.Sub(now)
}

// askable tells whether the backend is one that reflection is for.
func (b *backend) askable() bool {
	return !b.named && b.spec.Spec.Protocol != store.ProtocolHTTP1
}

// ask is the conversation with a backend that goes on, or a new one if it may be asked
// now; else nil.
func (r *Registry) ask(key string) *asking {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.backends[key]
	switch {
	case b == nil || !b.askable():
		return nil
	case b.asking != nil:
		return b.asking
	case b.learnt != nil || r.now().Before(b.retry):
		return nil
	}
	return r.begin(b)
}

// begin begins a conversation, unless the registry has ended.
func (r *Registry) begin(b *backend) *asking {
	b.again = time.Time{}
	if r.stopped {
		return nil
	}
	a := &asking{done: make(chan struct{})}
	b.asking = a
	r.running.Go(func() { r.converse(b, a) })
	return a
}

// converse asks a backend, once one of the slots is free.
func (r *Registry) converse(b *backend, a *asking) {
	defer close(a.done)
	wait, cancel := context.WithTimeout(r.lessons, slotTimeout)
	defer cancel()
	select {
	case r.slots <- struct{}{}:
	case <-wait.Done():
		r.postpone(b)
		return
	}
	defer func() { <-r.slots }()
	ctx, cancel := context.WithTimeout(r.lessons, learnTimeout)
	defer cancel()
	s, version, err := learn(ctx, r.open, b.key)
	a.ok = r.settle(b, s, version, err)
}

// postpone ends a conversation that did not begin, which is no fault of the backend.
func (r *Registry) postpone(b *backend) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b.asking = nil
	b.err = errBusy
	if b.learnt != nil {
		b.again = r.now().Add(restTime)
	}
	if r.backends[b.key] == b {
		r.publish() // the schemas are the same
	}
	r.wakeRun()
}

var errBusy = fmt.Errorf("no turn within %v: other backends are slow to answer", slotTimeout)

// settle keeps what a conversation brought. It tells whether that is anything new.
func (r *Registry) settle(b *backend, s *Schema, version string, err error) bool {
	r.mu.Lock()
	b.asking, b.at = nil, r.now()
	if err != nil {
		r.fail(b, version, err)
	} else {
		b.learnt, b.version, b.err, b.failures, b.retry = r.shared(s), version, nil, 0, time.Time{}
	}
	changed := false
	if r.backends[b.key] == b { // else it is gone meanwhile
		changed = r.publish()
	}
	r.wakeRun()
	r.mu.Unlock()
	r.report(b.key, s, version, err)
	if changed {
		r.tell()
	}
	return changed
}

// fail remembers a failure. What was told before stays in force; it is looked at again
// unless the backend has given reflection up.
func (r *Registry) fail(b *backend, version string, err error) {
	backoff := min(firstBackoff<<min(b.failures, 10), maxBackoff)
	if errors.Is(err, ErrUnimplemented) {
		backoff = maxBackoff
	}
	b.err = err
	b.failures++
	if b.learnt == nil {
		b.version = version
		b.retry = r.now().Add(backoff)
		return
	}
	if b.again.IsZero() && !errors.Is(err, ErrUnimplemented) {
		b.again = r.now().Add(backoff)
	}
}

func (r *Registry) report(backend string, s *Schema, version string, err error) {
	if err != nil {
		if r.lessons.Err() == nil {
			r.log.Info("schema not learnt", "backend", backend, "reflection", version, "err", err)
		}
		return
	}
	r.log.Info("schema learnt", "backend", backend, "reflection", version,
		"services", len(s.Services()), "methods", len(s.Methods()), "faults", len(s.Faults()))
}
