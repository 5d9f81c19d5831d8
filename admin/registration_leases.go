package admin

import (
	"context"
	"time"

	"sluice/store"
)

// Leases keep what processes announce: *store.Leases. Its methods are safe for use by
// several goroutines.
type Leases interface {
	// Register announces an endpoint, or says anew what it announced, and begins its
	// lease. Nothing is written when nothing changes. The error is store.Faults, a
	// *store.NotFoundError, or of the disk.
	Register(ctx context.Context, spec store.RegistrationSpec, namespace string, by store.Author) (*store.Object, error)
	// Renew begins a lease anew. It writes nothing. The error is store.ErrNoLease.
	Renew(id store.ID) error
	// Deregister ends a registration. The error is a *store.NotFoundError, or of the disk.
	Deregister(ctx context.Context, id store.ID, by store.Author) error
	// Expires is when a lease is over; zero when there is none, or it is held.
	Expires(id store.ID) time.Time
	// Holds keeps a registration whatever its lease until release is called, when the
	// lease begins anew.
	Holds(id store.ID) (release func())
}
