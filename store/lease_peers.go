package store

import "time"

// LeasePeers are the other nodes, as far as leases go: *cluster.Cluster. Of the methods
// none waits for anybody, nor calls Leases.
type LeasePeers interface {
	// Steward is which live node looks after the lease of a registration that was last
	// written at a node: that node while it lives. Whoever asks knows of changes by
	// Leases.Reconsider.
	Steward(id ID, writer string) string
	// Renew passes a renewal on to the steward. It may be lost, when who lives changes.
	Renew(steward string, id ID)
}

// forwards is how often what is held here is renewed, in one lease, at the node that looks
// after it: two of three may be lost.
const forwards = 3

// Renewed takes in a renewal that a peer has passed on.
func (l *Leases) Renewed(id ID) {
	snap := l.store.Snapshot()
	o, ok := snap.Get(id)
	if !ok || !snap.takes(o) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.leases[o.ID]
	if known != nil && known.ending {
		return
	}
	l.track(o, known != nil && known.mine)
	l.leases[o.ID].passed = true
}

// Reconsider is to be called when who lives has changed: leases pass from those who are
// gone to those who are there. Nothing is written for it.
func (l *Leases) Reconsider() {
	l.mu.Lock()
	l.reconsider = true
	l.mu.Unlock()
	l.hurry()
}

// steward is who looks after a lease. Nobody asks with mu.
func (l *Leases) steward(o *Object) string {
	if l.opts.Peers == nil {
		return l.store.Node()
	}
	return l.opts.Peers.Steward(o.ID, o.Revision.Node)
}

// renew begins a lease anew, at whoever looks after it; false when it is ending.
func (l *Leases) renew(o *Object) bool {
	steward := l.steward(o)
	mine := steward == l.store.Node()
	l.mu.Lock()
	known := l.leases[o.ID]
	ending := known != nil && known.ending
	if !ending {
		l.track(o, mine)
	}
	l.mu.Unlock()
	if !ending && !mine {
		l.opts.Peers.Renew(steward, o.ID)
	}
	return !ending
}

// forward renews what is held here and looked after elsewhere. It returns when to do so
// again, zero for not before something changes.
func (l *Leases) forward() (next time.Time) {
	held, next := l.elsewhere()
	for _, o := range held {
		if steward := l.steward(o); steward != l.store.Node() {
			l.opts.Peers.Renew(steward, o.ID)
		}
	}
	return next
}

// elsewhere are the registrations that are held here, and to be renewed at another node
// now, and when the next ones are.
func (l *Leases) elsewhere() (held []*Object, next time.Time) {
	now := l.opts.Now()
	snap := l.store.Snapshot()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, known := range l.leases {
		if known.mine || known.holders == 0 {
			continue
		}
		if !known.forward.After(now) {
			o, found := snap.Get(id)
			if !found {
				continue // follow forgets it
			}
			held = append(held, o)
			known.forward = now.Add(snap.term(o) / forwards)
		}
		next = earlier(next, known.forward)
	}
	return held, next
}

// doubtPassed has those leases doubted whose renewals come by peers: the one that they came
// by may be gone, and not the process. The caller holds mu.
func (l *Leases) doubtPassed() {
	for _, known := range l.leases {
		if known.mine && known.passed {
			known.inherited = true
		}
	}
}
