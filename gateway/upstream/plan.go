package upstream

import (
	"crypto/tls"
	"time"

	"sluice/gateway/balance"
	"sluice/store"
)

// Plan is what a set of backends changes. Its files have been read and its
// endpoints are known, but it is not in force yet.
type Plan struct {
	// Changed are the backends that are others now, by key; nil is one that is gone.
	Changed map[string]*Backend

	specs   []*store.Backend
	known   map[string]*known // what Pool.known gets; nil takes it away
	fresh   map[identity]*Endpoint
	adopted []adoption
}

// known is what the pool has of one store.Backend.
type known struct {
	spec     *store.Backend
	security security       // the last that could be read
	secured  *store.Backend // the declaration that it was read for
	answer   *answer        // that backend was made with; nil without DNS, or before the first
	backend  *Backend       // of spec; or, when there is a problem, the last that had none
	problem  error          // why spec cannot be put in force
}

// adoption is what Commit makes of one endpoint.
type adoption struct {
	endpoint *Endpoint
	settings settings
}

// Prepare works out what a set changes. A backend is known by its pointer: one that
// is the same as before costs nothing, unless it names files, which are all read
// again. A backend that cannot be put in force, because of its files, stays as it
// was, or is one without endpoints when it is new. Nothing changes before Commit.
func (p *Pool) Prepare(set *store.Set) *Plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	gone, come := difference(p.specs, set.Backends)
	plan := &Plan{
		Changed: make(map[string]*Backend, len(come)), specs: set.Backends,
		known: make(map[string]*known, len(come)), fresh: make(map[identity]*Endpoint, len(come)),
	}
	for _, spec := range gone {
		plan.known[spec.Key()], plan.Changed[spec.Key()] = nil, nil
	}
	files := make(files)
	for _, spec := range come {
		p.plan(plan, spec, files)
	}
	for key, k := range p.watched {
		if _, planned := plan.known[key]; !planned {
			p.plan(plan, k.spec, files)
		}
	}
	for key, l := range p.discovery.lookups {
		if _, planned := plan.known[key]; !planned && p.known[key].answer != l.answer {
			p.plan(plan, p.known[key].spec, files)
		}
	}
	p.planned = true
	return plan
}

// plan sees what becomes of one backend. The caller holds mu.
func (p *Pool) plan(plan *Plan, spec *store.Backend, files files) {
	key := spec.Key()
	before := p.known[key]
	now := &known{spec: spec, secured: spec, answer: p.answerOf(spec)}
	if before != nil {
		now.secured = before.secured
	}
	plan.known[key] = now
	delete(plan.Changed, key)
	good := before != nil && before.backend.Problem == nil
	same := before != nil && before.spec == spec && before.answer == now.answer
	texts, fault := files.gather(spec)
	var secured security
	switch {
	case fault != nil:
	case good && same && before.problem == nil && before.security.digest == texts.sum():
		now.security, now.backend = before.security, before.backend
		return
	case texts != nil:
		secured, fault = texts.security()
	}
	switch {
	case fault == nil:
		now.security, now.secured, now.backend = secured, spec, p.build(plan, now, secured)
	case good && same:
		now.security, now.backend, now.problem = before.security, before.backend, fault
		return
	case good && sameTLS(before.secured, spec):
		// What was read is good for what else has changed: a drain, say.
		now.security, now.backend, now.problem = before.security, p.build(plan, now, before.security), fault
	case good:
		now.security, now.backend, now.problem = before.security, before.backend, fault
		return
	default:
		now.backend, now.problem = &Backend{Key: key, Problem: fault}, fault
	}
	plan.Changed[key] = now.backend
}

// place is one endpoint of a backend, whoever says that it is there.
type place struct {
	store.Endpoint
	name string // that DNS has it under; empty for others
}

// places are the endpoints of a backend: those that its set has, and those that DNS has
// found. One that both have is the set's.
func (k *known) places() []place {
	declared := k.spec.Spec.Endpoints
	list := make([]place, 0, len(declared))
	for i := range declared {
		list = append(list, place{Endpoint: declared[i]})
	}
	if k.answer == nil {
		return list
	}
	has := make(map[string]bool, len(declared))
	for i := range declared {
		has[declared[i].Address] = true
	}
	for _, f := range k.answer.found {
		if has[f.address] {
			continue
		}
		e := store.Endpoint{Address: f.address, Weight: f.weight, Source: store.SourceDNS}
		if e.Drain = k.spec.Spec.DrainOf(f.address); e.Drain != nil {
			e.Weight = 0
		}
		list = append(list, place{e, f.name})
	}
	return list
}

// build makes a backend of the endpoints that there are, and of new ones.
func (p *Pool) build(plan *Plan, k *known, secured security) *Backend {
	spec, places := k.spec, k.places()
	b := &Backend{
		Key: spec.Key(), spec: spec, counted: countedBy(&spec.Spec),
		Endpoints: make([]*Endpoint, 0, len(places)), nodes: make([]*balance.Node, 0, len(places)),
	}
	for _, at := range places {
		own := secured.of(at.name)
		id := identity{b.Key, at.Address, own.digest, b.HTTP()}
		e := p.find(plan, id)
		plan.adopted = append(plan.adopted, adoption{e, settings{
			weight: at.Weight, maxStreams: uint32(spec.Spec.Connection.MaxStreams),
			maxConns: spec.Spec.Connection.MaxConnections, timeout: time.Duration(spec.Spec.ConnectTimeout), tls: own.config,
			declared: at.Endpoint, check: spec.Spec.HealthCheck, slowStart: spec.Spec.LoadBalancing.SlowStart,
		}})
		b.Endpoints = append(b.Endpoints, e)
		b.nodes = append(b.nodes, &e.Node)
	}
	return b
}

// of is how an endpoint is spoken to that DNS has found under a name: unless the backend
// says otherwise, its certificate is in that name and not in an address.
func (s security) of(name string) security {
	if s.config == nil || s.config.ServerName != "" || name == "" {
		return s
	}
	config := s.config.Clone()
	config.ServerName = name
	return security{s.digest + "/" + name, config}
}

// find returns the endpoint that is known by id, or a new one. The caller holds mu.
func (p *Pool) find(plan *Plan, id identity) *Endpoint {
	for _, list := range []map[identity]*Endpoint{p.endpoints, p.leaving, plan.fresh} {
		if e := list[id]; e != nil {
			return e
		}
	}
	e := newEndpoint(p, id)
	plan.fresh[id] = e
	return e
}

// Commit makes the plan's endpoints the pool's. The function that it returns lets
// the others go, and is to be called when no new RPC can find them: they take
// no new streams but of RPCs that have, and close when their last one has ended.
func (p *Pool) Commit(plan *Plan) (letGo func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.planned = false
	p.specs = plan.specs
	for key := range plan.Changed {
		if k := p.known[key]; k != nil {
			p.dismiss(k.backend)
		}
	}
	for key, k := range plan.known {
		delete(p.watched, key)
		if k == nil {
			delete(p.known, key)
			continue
		}
		p.known[key] = k
		if k.problem != nil || namesFiles(k.spec) {
			p.watched[key] = k
		}
	}
	p.follow(plan)
	for _, a := range plan.adopted {
		id := a.endpoint.id
		delete(p.leaving, id)
		p.endpoints[id] = a.endpoint
		a.endpoint.adopt(a.settings)
		p.graces.grant(a.endpoint, &a.settings)
	}
	for key, b := range plan.Changed {
		if b != nil {
			b.makePicker(p.Zone)
		}
		p.regroup(key, b)
	}
	p.noteDrains()
	return p.letGo
}

// dismiss has the endpoints of a backend leave; those that its successor has come
// back at once. The caller holds mu.
func (p *Pool) dismiss(b *Backend) {
	for _, e := range b.Endpoints {
		delete(p.endpoints, e.id)
		p.leaving[e.id] = e
	}
}

// Backend is the one of that key as of the last Commit, nil when there is none.
func (p *Pool) Backend(key string) *Backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.known[key]; k != nil {
		return k.backend
	}
	return nil
}

// Problem is why the backend of that key is not as it should be, nil when it is.
func (p *Pool) Problem(key string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.known[key]; k != nil {
		return k.problem
	}
	return nil
}

// Problems are those of all backends.
func (p *Pool) Problems() map[*store.Backend]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	problems := make(map[*store.Backend]error)
	for _, k := range p.watched {
		if k.problem != nil {
			problems[k.spec] = k.problem
		}
	}
	return problems
}

// NamesFiles tells whether another Prepare of the same set may find something new:
// some backend names files.
func (p *Pool) NamesFiles() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.watched) > 0
}

// difference is by which pointers two lists differ. Mostly all places before and
// behind a change are the same.
func difference(before, after []*store.Backend) (gone, come []*store.Backend) {
	for len(before) > 0 && len(after) > 0 && before[0] == after[0] {
		before, after = before[1:], after[1:]
	}
	for len(before) > 0 && len(after) > 0 && before[len(before)-1] == after[len(after)-1] {
		before, after = before[:len(before)-1], after[:len(after)-1]
	}
	left := make(map[*store.Backend]bool, len(before))
	for _, b := range before {
		left[b] = true
	}
	for _, b := range after {
		if !left[b] {
			come = append(come, b)
		}
		delete(left, b)
	}
	for _, b := range before {
		if left[b] {
			gone = append(gone, b)
		}
	}
	return gone, come
}

// settings of an endpoint that may change without making it another one.
type settings struct {
	weight     uint32
	maxStreams uint32 // on one connection
	maxConns   int    // 0 = the default
	timeout    time.Duration
	tls        *tls.Config
	declared   store.Endpoint
	check      *store.HealthCheck // nil asks nobody
	slowStart  *store.SlowStart   // nil gives the whole share at once
}
