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

	mu        sync.Mutex // guards endpoints; taken before an endpoint's own
	endpoints map[identity]*Endpoint
}

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
		eng: eng, log: log, ctx: ctx, cancel: cancel, endpoints: make(map[identity]*Endpoint),
		dial: func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) },
	}
}

// Run keeps the connections until ctx is done, then closes them and waits for
// their goroutines.
func (p *Pool) Run(ctx context.Context) error {
	<-ctx.Done()
	p.mu.Lock()
	for _, e := range p.endpoints {
		e.retire()
	}
	p.mu.Unlock()
	p.cancel()
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
				if e = p.endpoints[id]; e == nil {
					e = newEndpoint(p, id)
				}
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
	return plan, errors.Join(errs...)
}

// Commit makes the plan's endpoints the pool's. Those that are not in it take no
// new streams, and close when their last one has ended.
func (p *Pool) Commit(plan *Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, e := range p.endpoints {
		if plan.keep[id] == nil {
			e.retire()
		}
	}
	p.endpoints = plan.keep
	for _, e := range plan.keep {
		e.adopt()
	}
	for _, b := range plan.Backends {
		b.makePicker()
	}
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
