package store

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// ErrNoLease refuses to renew what is not registered, or not any more: who is still
// there registers again.
var ErrNoLease = errors.New("there is no such registration, or its lease is over")

const (
	// leaseRetry is the pause before leases are ended for which there was no room on
	// the disk.
	leaseRetry = time.Second
	// maxLeaseLines bounds the lines of log about leases that end together.
	maxLeaseLines = 10
)

// LeaseOptions are what Leases need beside the store.
type LeaseOptions struct {
	Now func() time.Time // nil means time.Now
	Log *slog.Logger     // nil means none
	// OwnAddresses are where the gateway itself is reached: nobody may register them,
	// since its RPCs would come back to it. One of every address of the machine stands
	// for the loopback ones too; the others are to be listed. Nil means none. A name that
	// leads there is found out when it is dialled.
	OwnAddresses func() []netip.AddrPort
	// Peers are the other nodes of a cluster; nil means that there are none, and that this
	// node looks after every lease.
	Peers LeasePeers
	// Reach finds out whether an endpoint can be reached, for a lease that this node has
	// taken over and that nobody has renewed since; nil means that such a one ends like any
	// other. It is called by several goroutines at once, and returns when ctx is done.
	Reach func(ctx context.Context, backend ID, address string) bool
}

// Leases end the registrations of processes that are not heard of any more. How long
// each holds is known in memory alone: a renewal writes nothing.
//
// One node of a cluster looks after each lease, its steward: the one where the
// registration was written last, and while that is gone another that lives. Whoever hears
// of a process elsewhere tells the steward; only the steward ends what it has not heard
// of. A node that begins to look after a lease, as all do after a start, gives it a whole
// one; and since the process may not have known whom to tell, ends it only when the
// endpoint cannot be reached either, until the first renewal has come. So it does, for a
// while, when renewals come by other nodes, which may not get through.
//
// The methods may be called from any goroutine.
type Leases struct {
	// Fixed at construction.
	store *Store
	opts  LeaseOptions
	wake  chan struct{} // tells Run that a lease may end sooner than it thinks

	// writing is full while a registration is made or ended, so that none is ended which
	// somebody makes anew. It is taken before the store's.
	writing chan struct{}

	mu       sync.Mutex // guards the fields below; taken after writing
	leases   map[ID]*lease
	followed []*Object // the registrations that leases was compared with last
	// reconsider is set when who lives has changed, and leases was not compared with it yet.
	reconsider bool
	reaching   int // endpoints that are being asked whether they are there
}

// lease is how long one registration holds.
type lease struct {
	mine    bool      // this node looks after it
	of      Revision  // of the registration, when that was found out
	until   time.Time // when it is over, if it is mine
	assured time.Time // until when a renewal holds that has come here; zero before the first
	passed  bool      // that renewal came by a peer
	spared  int       // how often it was over since, and the endpoint was there
	holders int       // as long as there are any, it does not end
	forward time.Time // when one that is held is to be renewed at its steward again
	ending  bool      // it is over, and the disk is being told

	inherited bool // who renews it may not have known where
	asking    bool // somebody finds out whether the endpoint is there
	unreached bool // it is not

	doubted Revision  // of the tombstone of another node that was refused last, for now
	since   time.Time // when it was refused first
}

// NewLeases makes the leases of a store. Run ends them.
func NewLeases(s *Store, opts LeaseOptions) *Leases {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	l := &Leases{
		store: s, opts: opts, leases: map[ID]*lease{},
		wake: make(chan struct{}, 1), writing: make(chan struct{}, 1),
	}
	l.follow(s.Snapshot())
	s.leases.Store(l)
	return l
}

// Register announces an endpoint of a Backend of that namespace, or says anew what was
// announced, and begins its lease. Nothing is written when nothing changes. The error is
// of type Faults, a *NotFoundError when there is no such Backend, or one of the disk.
func (l *Leases) Register(ctx context.Context, spec RegistrationSpec, namespace string, by Author) (*Object, error) {
	spec.Address = NormalAddress(spec.Address)
	if l.isOwn(spec.Address) {
		return nil, Faults{{Field: "address", Message: quote(spec.Address) + " is this gateway itself, its port for RPCs or the one of operators: no endpoint may be there"}}
	}
	if err := l.begin(ctx); err != nil {
		return nil, err
	}
	defer l.done()
	r := &Registration{Meta: Meta{Namespace: namespace, Name: RegistrationName(spec.Backend, spec.Address)}, Spec: spec}
	if _, err := l.store.Write(ctx, Txn{Author: by, Ops: []Op{{Apply: r}}}); err != nil {
		return nil, err
	}
	id := ResourceID(r)
	o, ok := l.store.Snapshot().Get(id)
	if !ok { // somebody else was faster
		return nil, &NotFoundError{id}
	}
	l.renew(o)
	return o, nil
}

// Renew begins a lease anew, and writes nothing. Where another node looks after it that
// one is told, and nobody waits for the answer. The error is ErrNoLease, also when the
// Backend is gone or takes no registrations any more.
func (l *Leases) Renew(id ID) error {
	snap := l.store.Snapshot()
	o, ok := snap.Get(id)
	if !ok || !snap.takes(o) {
		return ErrNoLease
	}
	if !l.renew(o) {
		return ErrNoLease
	}
	return nil
}

// Deregister ends a registration. The error is a *NotFoundError, or one of the disk.
func (l *Leases) Deregister(ctx context.Context, id ID, by Author) error {
	if id.Kind != RegistrationKind {
		return &NotFoundError{id}
	}
	if err := l.begin(ctx); err != nil {
		return err
	}
	defer l.done()
	_, err := l.store.Write(ctx, Txn{Author: by, Ops: []Op{{ID: id, Delete: true}}})
	return err // Run forgets the lease
}

// Expires is when a lease is over; zero when there is none, or somebody holds it. Of one
// that another node looks after, it is what this node has heard: when it would be over if
// the last renewal that came here was the last; zero when that is past, or none has come.
func (l *Leases) Expires(id ID) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.leases[id]
	switch {
	case known == nil || known.holders > 0 || known.ending:
		return time.Time{}
	case known.mine:
		return known.until
	case known.assured.After(l.opts.Now()):
		return known.assured
	}
	return time.Time{}
}

// Holds keeps a registration whatever its lease, until release is called for the first
// time: the lease then begins anew. What is not registered is not held. Where another node
// looks after it, that one is told again and again.
func (l *Leases) Holds(id ID) (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.leases[id]
	if held == nil {
		return func() {}
	}
	held.holders++
	held.forward = time.Time{}
	l.hurry()
	return sync.OnceFunc(func() { l.release(id, held) })
}

// release takes a holder away.
func (l *Leases) release(id ID, held *lease) {
	o, found := l.store.Snapshot().Get(id)
	steward := l.store.Node()
	if found {
		steward = l.steward(o)
	}
	mine := steward == l.store.Node()
	l.mu.Lock()
	held.holders--
	begins := found && l.leases[id] == held
	if begins {
		l.track(o, mine)
		l.hurry()
	}
	l.mu.Unlock()
	if begins && !mine {
		l.opts.Peers.Renew(steward, id)
	}
}

// track begins the lease of a registration. Its caller holds mu.
func (l *Leases) track(o *Object, mine bool) {
	known := l.leases[o.ID]
	if known == nil {
		known = &lease{}
		l.leases[o.ID] = known
		l.hurry()
	}
	until := l.opts.Now().Add(l.store.Snapshot().term(o))
	if until.Before(known.until) {
		l.hurry()
	}
	known.mine, known.of = mine, o.Revision
	known.until, known.assured, known.passed, known.spared = until, until, false, 0
	known.ending, known.inherited, known.unreached = false, false, false
}

// begin waits until nobody else makes or ends a registration; done lets the next one.
func (l *Leases) begin(ctx context.Context) error {
	select {
	case l.writing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Leases) done() { <-l.writing }

// takes tells whether there is still a Backend that the registration means, and it takes
// registrations.
func (s *Snapshot) takes(o *Object) bool {
	r, ok := o.Resource.(*Registration)
	if !ok {
		return false
	}
	b, ok := s.Get(r.backend())
	return ok && b.Resource.(*Backend).Spec.Registration != nil
}

// term is how long a registration holds: as it says, but no longer than its Backend
// allows by now.
func (s *Snapshot) term(o *Object) time.Duration {
	r := o.Resource.(*Registration)
	term := r.Spec.Lease
	if b, ok := s.Get(r.backend()); ok {
		if takes := b.Resource.(*Backend).Spec.registering(); takes != nil {
			term = min(term, takes.MaxLease)
		}
	}
	return time.Duration(term)
}
