package store

// leaseActor is the author of what Leases do by themselves.
const leaseActor = "lease"

// StreamEnded is the reason for which a registration is ended whose process has ended the
// stream that kept it. It speaks for that stream alone: a process that is being replaced may
// be kept at another node by then.
const StreamEnded = "the process has ended its stream"

// endedByLease tells whether an object is the tombstone of a registration whose lease was
// over, which nobody has wished. An account of the same name writes by some way.
func endedByLease(o *Object) bool {
	return o.Deleted && o.ID.Kind == RegistrationKind && o.Author.Actor == leaseActor && o.Author.Via == ""
}

func endedByStream(o *Object) bool {
	return o.Deleted && o.ID.Kind == RegistrationKind && o.Author.Reason == StreamEnded
}

// outlives tells whether a registration goes on whose tombstone comes from another node:
// because this one has heard of the process within its lease and the other has not, or a
// stream keeps it here and another has ended. It waits for nobody.
func (s *Store) outlives(tombstone *Object) bool {
	holds := s.holds.Load()
	return holds != nil && (endedByLease(tombstone) || endedByStream(tombstone)) && (*holds)(tombstone)
}

// outlives is Store.outlives of a tombstone of one of the two kinds.
func (l *Leases) outlives(tombstone *Object) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.leases[tombstone.ID]
	switch {
	case known == nil:
		return false
	case known.holders > 0:
		return true
	}
	return endedByLease(tombstone) && known.assured.After(l.opts.Now())
}
