package store

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
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
}

// Leases end the registrations of processes that are not heard of any more. How long
// each holds is known in memory alone: a renewal writes nothing, and after a restart
// every registration has its whole lease again. Registrations of other nodes are theirs
// to end. The methods may be called from any goroutine.
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
}

// lease is how long one registration holds.
type lease struct {
	until   time.Time
	holders int  // as long as there are any, it does not end
	ending  bool // it is over, and the disk is being told
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
	return l
}

// Run ends the registrations whose lease is over, until ctx is done.
func (l *Leases) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		snap := l.store.Snapshot()
		l.follow(snap)
		timer.Stop() // it may not have fired yet
		if next := l.end(ctx); !next.IsZero() {
			timer.Reset(max(next.Sub(l.opts.Now()), time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.store.done:
			return ErrClosed
		case <-snap.superseded:
		case <-l.wake:
		case <-timer.C:
		}
	}
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
	l.mu.Lock()
	defer l.mu.Unlock()
	l.track(o)
	return o, nil
}

// Renew begins a lease anew, and writes nothing. The error is ErrNoLease, also when the
// Backend is gone or takes no registrations any more.
func (l *Leases) Renew(id ID) error {
	snap := l.store.Snapshot()
	o, ok := snap.Get(id)
	if !ok || !snap.takes(o) {
		return ErrNoLease
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.leases[o.ID]
	if known == nil && o.Owner.Kind != OwnerAPI || known != nil && known.ending {
		return ErrNoLease
	}
	l.track(o)
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

// Expires is when a lease is over; zero when there is none, or somebody holds it.
func (l *Leases) Expires(id ID) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.leases[id]
	if known == nil || known.holders > 0 || known.ending {
		return time.Time{}
	}
	return known.until
}

// Holds keeps a registration whatever its lease, until release is called for the first
// time: the lease then begins anew. What is not registered is not held.
func (l *Leases) Holds(id ID) (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.leases[id]
	if held == nil {
		return func() {}
	}
	held.holders++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		held.holders--
		if o, ok := l.store.Snapshot().Get(id); ok && l.leases[id] == held {
			l.track(o)
			l.hurry()
		}
	})
}

// track begins the lease of a registration. Its caller holds mu.
func (l *Leases) track(o *Object) {
	known := l.leases[o.ID]
	if known == nil {
		known = &lease{}
		l.leases[o.ID] = known
		l.hurry()
	}
	known.until, known.ending = l.opts.Now().Add(l.store.Snapshot().term(o)), false
}

// hurry has Run look at the leases.
func (l *Leases) hurry() {
	select {
	case l.wake <- struct{}{}:
	default: // it will
	}
}

// follow begins the leases of registrations that are new here, as they all are after a
// start, and forgets those of what is gone.
func (l *Leases) follow(snap *Snapshot) {
	list := snap.live[registrations]
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(list) == len(l.followed) && (len(list) == 0 || &list[0] == &l.followed[0]) {
		return
	}
	l.followed = list
	for _, o := range list {
		if o.Owner.Kind == OwnerAPI && l.leases[o.ID] == nil {
			l.track(o)
		}
	}
	for id := range l.leases {
		if _, found := search(list, id); !found {
			// One that was made since snap is found in the snapshot after it.
			if _, now := l.store.Snapshot().Get(id); !now {
				delete(l.leases, id)
			}
		}
	}
}

// end ends what is over, all of it in one transaction. It returns when to look again,
// zero for not before something changes.
func (l *Leases) end(ctx context.Context) time.Time {
	if due, next := l.due(false); len(due) == 0 {
		return next
	}
	if l.begin(ctx) != nil {
		return time.Time{} // ctx is done, and with it Run
	}
	defer l.done()
	due, next := l.due(true) // some may have been renewed meanwhile
	txn := &Txn{Author: Author{Actor: "lease", Reason: "the lease was over"}}
	_, err := l.store.transact(ctx, txn, func(p *plan) error {
		for _, id := range due {
			if !p.current(id).live() {
				continue
			}
			if err := p.remove(id); err != nil {
				return err
			}
		}
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		for _, id := range due {
			l.leases[id].ending = false
		}
		if ctx.Err() == nil {
			l.opts.Log.Warn("registrations not ended", "leases over", len(due), "error", err)
		}
		return l.opts.Now().Add(leaseRetry)
	}
	for i, id := range due {
		delete(l.leases, id)
		if i < maxLeaseLines {
			l.opts.Log.Info("registration not renewed", "registration", id.Key())
		}
	}
	if more := len(due) - maxLeaseLines; more > 0 {
		l.opts.Log.Info("further registrations not renewed", "registrations", more)
	}
	return next
}

// due are the registrations whose lease is over, marked as ending if mark says so, and
// when the next one is, zero for never.
func (l *Leases) due(mark bool) (ids []ID, next time.Time) {
	now := l.opts.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, known := range l.leases {
		switch {
		case known.holders > 0:
		case !known.until.After(now):
			ids = append(ids, id)
			known.ending = mark
		case next.IsZero() || known.until.Before(next):
			next = known.until
		}
	}
	return ids, next
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

// isOwn tells whether an address leads to the gateway itself, as far as can be told
// without asking anybody.
func (l *Leases) isOwn(address string) bool {
	if l.opts.OwnAddresses == nil {
		return false
	}
	var at []netip.AddrPort
	if parsed, err := netip.ParseAddrPort(address); err == nil {
		at = append(at, netip.AddrPortFrom(plain(parsed.Addr()), parsed.Port()))
	} else if host, port, err := net.SplitHostPort(address); err == nil && isLoopbackName(host) {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return false
		}
		at = append(at, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(n)), netip.AddrPortFrom(netip.IPv6Loopback(), uint16(n)))
	}
	for _, own := range l.opts.OwnAddresses() {
		here := plain(own.Addr())
		for _, at := range at {
			same := at.Addr() == here || here.IsUnspecified() && at.Addr().IsLoopback()
			if same && at.Port() == own.Port() {
				return true
			}
		}
	}
	return false
}

// plain is an address by which two of one machine can be compared.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// isLoopbackName tells whether a name means the machine itself wherever it is looked up:
// RFC 6761, section 6.3, and what hosts files have for IPv6.
func isLoopbackName(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || host == "ip6-localhost" || host == "ip6-loopback"
}

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
