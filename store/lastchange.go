package store

// LastChange is the sequence of the last change of an object at this node, whoever made
// it. When history does not have it any more, it is that of a change that came later.
func (s *Store) LastChange(id ID) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if seqs := s.timeline.byObject[id]; len(seqs) > 0 {
		return seqs[len(seqs)-1]
	}
	return s.timeline.forgotten
}
