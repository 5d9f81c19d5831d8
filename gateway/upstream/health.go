package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/store"
)

// health is what active checks say of an endpoint. Guarded by its mu.
type health struct {
	checker *checker // nil when nobody asks
	known   bool     // some check has been answered, or not
	well    bool
	row     int    // checks in a row that say otherwise
	why     string // it is not well
	missed  bool   // the last check found nobody to ask

	watch *watch // that is open on a connection; nil while none is
}

// unwatch ends a Watch whose connection takes no more streams: a server that wants to go
// would wait for it.
func (h *health) unwatch(c *h2.Conn) {
	if h.watch != nil && h.watch.conn == c {
		h.watch.end()
	}
}

// checker asks one endpoint whether it is well, in one goroutine, until it is stopped.
type checker struct {
	e    *Endpoint
	spec *store.HealthCheck
	stop context.CancelFunc
	soon chan struct{}                   // buffered; told that the next check need not wait
	ask  func(ctx context.Context) error // nil when the endpoint is well
}

// hasten has an endpoint asked soon that was not there when it was asked last, and can be
// reached now. One that a check has cost the connection was there: it has its answer. The
// caller holds the endpoint's mu.
func (h *health) hasten() {
	if h.missed {
		h.ask()
	}
}

// ask has the checks ask soon, if there are any. The caller holds the endpoint's mu.
func (h *health) ask() {
	if h.checker == nil {
		return
	}
	select {
	case h.checker.soon <- struct{}{}:
	default:
	}
}

// errUndecided is a check that could not be made, which says nothing of the endpoint.
var errUndecided = errors.New("the check could not be made")

const notCheckedYet = "no health check has been answered yet"

// attend has the endpoint checked as spec says; nil stops that. The caller holds mu.
func (e *Endpoint) attend(spec *store.HealthCheck) {
	h := &e.health
	before := h.checker
	if before != nil && spec != nil && reflect.DeepEqual(before.spec, spec) {
		return
	}
	if before != nil {
		before.stop()
		h.checker = nil
	}
	if spec == nil || e.retired || e.pool.ctx.Err() != nil {
		h.known = false
		if before != nil {
			e.mark(balance.Unhealthy|balance.Unknown, false)
		}
		return
	}
	ctx, stop := context.WithCancel(e.pool.ctx)
	c := &checker{e: e, spec: spec, stop: stop, soon: make(chan struct{}, 1)}
	watches := false
	switch {
	case spec.GRPC != nil:
		watches = true
		c.ask = func(ctx context.Context) error { return e.checkGRPC(ctx, spec.GRPC.Service) }
	case spec.HTTP != nil:
		c.ask = func(ctx context.Context) error { return e.checkHTTP(ctx, spec.HTTP) }
	default:
		c.ask = e.checkTCP
	}
	h.checker, h.row, h.missed = c, 0, false
	if before == nil {
		h.known, h.well, h.why = false, false, notCheckedYet
		e.mark(balance.Unknown, true)
	}
	e.pool.work.Go(func() { c.run(ctx, watches) })
}

// run asks at once, and then every interval, give or take a tenth.
func (c *checker) run(ctx context.Context, watches bool) {
	defer c.stop()
	var w *watch
	if watches {
		w = &watch{checker: c, service: c.spec.GRPC.Service}
	}
	var work sync.WaitGroup // the one that watches
	defer work.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	rest := min(time.Duration(c.spec.Interval), soonest)
	var asked time.Time // when the last check was over
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.soon:
			if wait := rest - time.Since(asked); wait > 0 {
				timer.Reset(wait)
				continue
			}
		case <-timer.C:
		}
		began := time.Now()
		asking, cancel := context.WithTimeout(ctx, time.Duration(c.spec.Timeout))
		err := c.ask(asking)
		missed := unreached(err)
		if asking.Err() != nil && err != nil && !errors.Is(err, errUndecided) {
			err = errNoAnswer{time.Duration(c.spec.Timeout)}
		}
		cancel()
		asked = time.Now()
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, errUndecided) {
			c.found(err, false)
			c.reach(began, missed)
		}
		if w != nil && w.begin(time.Now()) {
			work.Go(func() { w.run(ctx) })
		}
		interval := float64(c.spec.Interval)
		timer.Reset(time.Duration(interval * (0.9 + 0.2*rand.Float64())))
	}
}

// soonest is how long after a check the next one may be that need not wait for its turn.
const soonest = time.Second

// reach notes whether a check that began at that time found nobody to ask. Who has come
// back meanwhile is asked soon.
func (c *checker) reach(began time.Time, missed bool) {
	e := c.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.health.checker != c {
		return
	}
	if e.health.missed = missed; e.Condition()&balance.Down == 0 && !e.upSince.Before(began) {
		e.health.hasten()
	}
}

// errNoAnswer is a check that took too long.
type errNoAnswer struct{ timeout time.Duration }

func (e errNoAnswer) Error() string { return "health check not answered within " + e.timeout.String() }

// found notes what a check has found; nil is well. What is certain holds at once, else
// it takes several checks that agree to change what is known.
func (c *checker) found(fault error, certain bool) {
	e := c.e
	e.mu.Lock()
	defer e.mu.Unlock()
	h := &e.health
	if h.checker != c {
		return // another has taken its place
	}
	well, enough := fault == nil, c.spec.UnhealthyThreshold
	if well {
		enough = c.spec.HealthyThreshold
		e.passed.Add(1)
	} else {
		e.failed.Add(1)
	}
	if h.known && h.well == well {
		h.row = 0
	} else {
		h.row++
	}
	if !well && (!h.well || certain || h.row >= enough) {
		h.why = fault.Error()
	}
	if certain || !h.known || h.row >= enough {
		h.known, h.well, h.row = true, well, 0
		e.mark(balance.Unhealthy, !well)
		e.mark(balance.Unknown, false)
	}
}
