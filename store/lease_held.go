package store

// leaseActor is the author of what Leases do by themselves.
const leaseActor = "lease"

// endedByLease tells whether an object is the tombstone of a registration whose lease was
// over, which nobody has wished. An account of the same name writes by some way.
func endedByLease(o *Object) bool {
	return o.Deleted && o.ID.Kind == RegistrationKind && o.Author.Actor == leaseActor && o.Author.Via == ""
}

// held tells whether this node has heard of a registration within its term, from the
// process or from a peer: its lease is not over, whatever another node says who has not.
// It waits for nobody.
func (s *Store) held(id ID) bool {
	holds := s.holds.Load()
	return holds != nil && (*holds)(id)
}
