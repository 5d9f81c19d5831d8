// Package upstream reaches backends: which endpoints there are, the connections
// to each, and who waits for one that is being dialled.
//
// An endpoint is known by what it is (backend, address, how it is spoken to) and
// not by the table that mentions it, so that its connections and the streams on
// them outlive every change that does not concern it.
package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/store"
)

// Pool is every endpoint of the process.
type Pool struct {
	eng    *h2.Engine
	log    *slog.Logger
	dial   func(ctx context.Context, address string) (net.Conn, error)
	ctx    context.Context // of all connections; ends with Run
	cancel context.CancelFunc

	work sync.WaitGroup // dialling and serving of every endpoint

	mu        sync.Mutex // guards the fields below; taken before an endpoint's own
	endpoints map[identity]*Endpoint
	leaving   map[identity]*Endpoint // of earlier plans, until nobody can want them
	planned   bool                   // a plan waits for Commit: what it has found stays
	reaping   bool                   // a goroutine sees to those who leave
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
}

// NewPool returns a pool without endpoints. Run ends what the pool has started.
func NewPool(eng *h2.Engine, log *slog.Logger) *Pool {
	var d net.Dialer
	ctx, cancel := context.WithCancel(context.Background())
	return &Pool{
		eng: eng, log: log, ctx: ctx, cancel: cancel, endpoints: make(map[identity]*Endpoint), leaving: make(map[identity]*Endpoint),
		dial: func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) },
	}
}

// Run keeps the connections until ctx is done, then closes them and waits for
// their goroutines.
func (p *Pool) Run(ctx context.Context) error {
	<-ctx.Done()
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

// Plan is a set of backends whose files have been read and whose endpoints are
// known, but which is not in force yet.
type Plan struct {
	Backends map[string]*Backend // by store key
	keep     map[identity]*Endpoint
}

// Prepare reads what the set's backends need. Nothing changes before Commit; the
// errors of all backends are joined.
func (p *Pool) Prepare(set *store.Set) (*Plan, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	plan := &Plan{Backends: make(map[string]*Backend, len(set.Backends)), keep: make(map[identity]*Endpoint)}
	var errs []error
	for _, sb := range set.Backends {
		security, config, err := clientTLS(sb)
		if err != nil {
			errs = append(errs, fmt.Errorf("backend %q: %w", sb.Key(), err))
			continue
		}
		b := &Backend{Key: sb.Key()}
		var nodes []*balance.Node
		for _, se := range sb.Spec.Endpoints {
			id := identity{sb.Key(), se.Address, security}
			e := plan.keep[id]
			if e == nil {
				e = p.find(id)
				plan.keep[id] = e
			}
			e.propose(settings{
				weight: se.Weight, maxStreams: uint32(sb.Spec.Connection.MaxStreams),
				maxConns: sb.Spec.Connection.MaxConnections, timeout: time.Duration(sb.Spec.ConnectTimeout), tls: config,
			})
			b.Endpoints = append(b.Endpoints, e)
			nodes = append(nodes, &e.Node)
		}
		b.policy, b.nodes = sb.Spec.LoadBalancing.Policy, nodes
		plan.Backends[b.Key] = b
	}
	p.planned = len(errs) == 0
	return plan, errors.Join(errs...)
}

// find returns the endpoint that is known by id, or a new one. The caller holds mu.
func (p *Pool) find(id identity) *Endpoint {
	if e := p.endpoints[id]; e != nil {
		return e
	}
	if e := p.leaving[id]; e != nil {
		return e
	}
	return newEndpoint(p, id)
}

// Commit makes the plan's endpoints the pool's. The function that it returns lets
// the others go, and is to be called when no new RPC can find them: they take
// no new streams but of RPCs that have, and close when their last one has ended.
func (p *Pool) Commit(plan *Plan) (letGo func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.planned = false
	for id, e := range p.endpoints {
		if plan.keep[id] == nil {
			p.leaving[id] = e
		}
	}
	p.endpoints = plan.keep
	for id, e := range plan.keep {
		delete(p.leaving, id)
		e.adopt()
	}
	for _, b := range plan.Backends {
		b.makePicker()
	}
	return p.letGo
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
		}
	}
	p.reaping = len(p.leaving) > 0
	return p.reaping
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

// Backend is the endpoints that share the RPCs of one store.Backend. It belongs to
// one table and does not change.
type Backend struct {
	Key       string
	Endpoints []*Endpoint

	policy store.Policy
	nodes  []*balance.Node
	picker balance.Picker
}

// makePicker is called once the endpoints' weights are those of this table.
func (b *Backend) makePicker() {
	if b.policy == store.RoundRobin {
		b.picker = balance.NewRoundRobin(b.nodes)
		return
	}
	b.picker = balance.NewLeastRequest(b.nodes)
}

// Pick chooses an endpoint and counts a stream on it, which the caller releases.
// The index is what avoid means; nil when nothing is left.
func (b *Backend) Pick(avoid balance.Mask) (e *Endpoint, index int) {
	i := b.picker.Pick(avoid)
	if i < 0 {
		return nil, -1
	}
	return b.Endpoints[i], i
}

// settings of an endpoint that may change without making it another one.
type settings struct {
	weight     uint32
	maxStreams uint32 // on one connection
	maxConns   int    // 0 = the default
	timeout    time.Duration
	tls        *tls.Config
}

// Others reports whether an endpoint is left that avoid does not name.
func (b *Backend) Others(avoid balance.Mask) bool {
	for i := range b.Endpoints {
		if !avoid.Has(i) {
			return true
		}
	}
	return false
}
