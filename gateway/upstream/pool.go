// Package upstream reaches backends: which endpoints there are, the connections
// to each, and who waits for one that is being dialled.
//
// An endpoint is known by what it is (backend, address, how it is spoken to) and
// not by the table that mentions it, so that its connections and the streams on
// them outlive every change that does not concern it.
package upstream

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sluice/gateway/h2"
	"sluice/store"
)

// Pool is every backend and every endpoint of the process.
type Pool struct {
	// Connected, if set before Run, is told of each new connection to a backend, by its
	// key. It must not block.
	Connected func(backend string)
	// Own, if set before Run, tells whether an address is a port of the gateway's own, which
	// is no endpoint of anything.
	Own func(netip.AddrPort) bool
	// Zone is where this gateway is, by the word that endpoints use; empty when it does not
	// say. It is set before the first Prepare.
	Zone string

	eng    *h2.Engine
	log    *slog.Logger
	dial   func(ctx context.Context, address string) (net.Conn, error)
	ctx    context.Context // of all connections; ends with Run
	cancel context.CancelFunc

	work    sync.WaitGroup // dialling, serving and watching of every endpoint
	drained chan struct{}  // buffered; told that endpoints may have been drained
	stirred chan struct{}  // buffered; told that an endpoint is on its way somewhere

	telling sync.Mutex // guards the field below
	told    told

	observed observed // what peers are to be told
	hints    hints    // what they have told

	mu        sync.Mutex // guards the fields below; taken before an endpoint's own
	specs     []*store.Backend
	known     map[string]*known // by key
	watched   map[string]*known // those of known that name files, or have a problem
	endpoints map[identity]*Endpoint
	leaving   map[identity]*Endpoint // of earlier plans, until nobody can want them
	gone      []*Endpoint            // retired while RPCs were open on them, until there are none
	groups    map[string]*group      // by key
	discovery discovery
	graces    graces
	planned   bool // a plan waits for Commit: what it has found stays
	reaping   bool // a goroutine sees to those who leave
}

// linger is how long an endpoint that no table mentions any more takes streams
// still, of RPCs that the table before had sent there: they were looked up
// microseconds ago, or wait for a connection that is being dialled.
const linger = time.Second

// identity is what makes an endpoint the same endpoint across changes.
type identity struct {
	backend  string // namespace/name
	address  string
	security string // digest of the TLS settings, "" in clear text
	http1    bool   // HTTP/1, not HTTP/2
}

// NewPool returns a pool without endpoints. Run ends what the pool has started.
func NewPool(eng *h2.Engine, log *slog.Logger) *Pool {
	var d net.Dialer
	ctx, cancel := context.WithCancel(context.Background())
	return &Pool{
		eng: eng, log: log, ctx: ctx, cancel: cancel, stirred: make(chan struct{}, 1), observed: newObserved(), hints: newHints(),
		known: make(map[string]*known), watched: make(map[string]*known), discovery: newDiscovery(), graces: make(graces), drained: make(chan struct{}, 1),
		endpoints: make(map[identity]*Endpoint), leaving: make(map[identity]*Endpoint), groups: make(map[string]*group),
		dial: func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) },
	}
}

// Run watches the endpoints and keeps their connections until ctx is done, then closes
// them and waits for their goroutines.
func (p *Pool) Run(ctx context.Context) error {
	for range lookers {
		p.work.Go(p.lookUp)
	}
	p.watch(ctx)
	p.mu.Lock()
	for _, list := range []map[identity]*Endpoint{p.endpoints, p.leaving} {
		for _, e := range list {
			e.retire()
		}
	}
	p.cancel()
	p.mu.Unlock()
	p.work.Wait()
	return nil
}

func (p *Pool) letGo() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.leaving {
		e.leave()
	}
	if len(p.leaving) > 0 && !p.reaping && p.ctx.Err() == nil {
		p.reaping = true
		p.work.Go(p.reap)
	}
}

// reap retires endpoints until none is leaving.
func (p *Pool) reap() {
	tick := time.NewTicker(linger / 4)
	defer tick.Stop()
	for p.retireUnwanted() {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// retireUnwanted retires those whom nobody can want any more, and reports whether
// others are left.
func (p *Pool) retireUnwanted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, e := range p.leaving {
		if !p.planned && e.unwanted(time.Now()) {
			e.retire()
			delete(p.leaving, id)
			p.gone = append(p.gone, e)
		}
	}
	p.forget()
	p.reaping = len(p.leaving) > 0
	return p.reaping
}

// forget drops those who are gone and empty. The caller holds mu.
func (p *Pool) forget() {
	p.gone = slices.DeleteFunc(p.gone, func(e *Endpoint) bool { return e.Active() <= 0 })
}

// Left are the endpoints that a backend has no more, and on which RPCs are open still.
func (p *Pool) Left(backend string) (list []*Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
	for _, e := range p.leaving {
		if e.id.backend == backend && e.Active() > 0 {
			list = append(list, e)
		}
	}
	for _, e := range p.gone {
		if e.id.backend == backend {
			list = append(list, e)
		}
	}
	return list
}

// Endpoints calls f for each endpoint of the pool, for metrics.
func (p *Pool) Endpoints(f func(*Endpoint)) {
	p.mu.Lock()
	list := make([]*Endpoint, 0, len(p.endpoints))
	for _, e := range p.endpoints {
		list = append(list, e)
	}
	p.mu.Unlock()
	for _, e := range list {
		f(e)
	}
}
