package store

// Conflicts are the objects, and what is left of deleted ones, that were changed at two
// nodes unknown to each other, until somebody edits them: they have Lost versions. They
// are in the order of their IDs, the live ones first.
func (s *Snapshot) Conflicts() []*Object {
	var list []*Object
	for _, objects := range append(s.live[:], s.tombstones) {
		for _, o := range objects {
			if len(o.Lost) > 0 {
				list = append(list, o)
			}
		}
	}
	return list
}

// Since are the objects, tombstones included, of which s has another version than an
// older snapshot, in the order of their IDs, the live ones first.
func (s *Snapshot) Since(old *Snapshot) []*Object {
	var list []*Object
	for k := range s.live {
		list = others(list, old.live[k], s.live[k])
	}
	return others(list, old.tombstones, s.tombstones)
}

// others adds the objects of b that are not those of a to a list. Both are in the order
// of their IDs.
func others(list, a, b []*Object) []*Object {
	if len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) {
		return list
	}
	for _, o := range b {
		for len(a) > 0 && a[0].ID.Compare(o.ID) < 0 {
			a = a[1:]
		}
		if len(a) == 0 || a[0] != o {
			list = append(list, o)
		}
	}
	return list
}
