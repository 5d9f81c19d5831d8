package admin

import (
	"context"
	"errors"
	"sync"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// keepers know which registrations are kept by streams. Several may keep the same one:
// a process that starts again comes before its old stream has ended. Who goes ends only
// what nobody else counts on.
type keepers struct {
	store  *store.Store
	leases Leases // nil: nobody can register

	mu     sync.Mutex // guards the fields below; held while a registration is written, so that one comes after the other
	serial uint64     // of the last announcement
	kept   map[store.ID]*keptRegistration
}

// keptRegistration is a registration that streams keep.
type keptRegistration struct {
	streams int
	leased  uint64 // the serial of the last announcement that counts on the lease: none of a stream, or of one that broke
}

// keeper is one stream that keeps a registration.
type keeper struct {
	id      store.ID
	serial  uint64
	release func()
}

func newKeepers(s *store.Store, leases Leases) *keepers {
	return &keepers{store: s, leases: leases, kept: map[store.ID]*keptRegistration{}}
}

// announced is what came of an announcement.
type announced struct {
	before, after *store.Object
}

// renewed tells whether it said nothing new.
func (a announced) renewed() bool { return a.before != nil && a.before.Revision == a.after.Revision }

// stored is what peers are asked to confirm: also of a renewal that they have it.
func (a announced) stored() []store.Change {
	return []store.Change{{ID: a.after.ID, Before: a.before, After: a.after}}
}

func (a announced) changes() []*adminv1.Change {
	return []*adminv1.Change{registrationChange(a.before, a.after)}
}

// register announces an endpoint that counts on its lease.
func (k *keepers) register(ctx context.Context, w *announcement) (announced, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	done, err := k.write(ctx, w)
	if kept := k.kept[w.id]; err == nil && kept != nil {
		kept.leased = k.serial
	}
	return done, err
}

// write announces an endpoint. The caller holds mu.
func (k *keepers) write(ctx context.Context, w *announcement) (announced, error) {
	before, found := k.store.Snapshot().Get(w.id)
	spec := w.spec
	if found {
		if err := w.from.may(before); err != nil {
			return announced{}, err
		}
		spec.Token = madeBy(before)
	}
	after, err := k.leases.Register(ctx, spec, w.id.Namespace, w.by)
	if err != nil {
		return announced{}, err
	}
	k.serial++
	return announced{before, after}, nil
}

// keep announces an endpoint that a stream keeps until part.
func (k *keepers) keep(ctx context.Context, w *announcement) (*keeper, announced, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	done, err := k.write(ctx, w)
	if err != nil {
		return nil, done, err
	}
	kept := k.kept[w.id]
	if kept == nil {
		kept = &keptRegistration{}
		k.kept[w.id] = kept
	}
	kept.streams++
	return &keeper{id: w.id, serial: k.serial, release: k.leases.Holds(w.id)}, done, nil
}

// part ends a keeper. One that said goodbye ends its registration, unless somebody else
// counts on it; of one that did not, the lease begins. The change is nil when there is none.
func (k *keepers) part(ctx context.Context, of *keeper, goodbye bool, by store.Author) (*adminv1.Change, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	of.release()
	kept := k.kept[of.id]
	kept.streams--
	if !goodbye {
		kept.leased = max(kept.leased, of.serial)
	}
	if kept.streams > 0 {
		return nil, nil
	}
	delete(k.kept, of.id)
	if !goodbye || kept.leased > of.serial {
		return nil, nil
	}
	change, err := k.end(ctx, of.id, by)
	var missing *store.NotFoundError
	if errors.As(err, &missing) {
		return nil, nil // somebody was faster
	}
	return change, err
}

// deregister ends a registration, whoever keeps it.
func (k *keepers) deregister(ctx context.Context, id store.ID, from claimant, by store.Author) (*adminv1.Change, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o, found := k.store.Snapshot().Get(id); found {
		if err := from.may(o); err != nil {
			return nil, err
		}
	}
	return k.end(ctx, id, by)
}

// end ends a registration. The caller holds mu.
func (k *keepers) end(ctx context.Context, id store.ID, by store.Author) (*adminv1.Change, error) {
	before, found := k.store.Snapshot().Get(id)
	if !found {
		return nil, &store.NotFoundError{ID: id}
	}
	if err := k.leases.Deregister(ctx, id, by); err != nil {
		return nil, err
	}
	return registrationChange(before, nil), nil
}

// keeps tells whether a stream keeps a registration.
func (k *keepers) keeps(id store.ID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept[id] != nil
}
