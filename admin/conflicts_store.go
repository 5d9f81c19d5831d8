package admin

import "sluice/store"

// What the store has of conflicts.

// contested are the objects that are in conflict, deleted ones included.
func contested(*store.Snapshot) []*store.Object { return nil }

// lostBy are the versions that gave way to an object, the latest first.
func lostBy(*store.Object) []*store.Object { return nil }

// keep writes what holds anew, in the knowledge of what was lost.
func keep(holds *store.Object) store.Op {
	return store.Op{ID: holds.ID, Exact: holds, IfRevision: holds.Revision.String()}
}

// take writes what was lost anew.
func take(holds, lost *store.Object) store.Op {
	return store.Op{ID: holds.ID, Exact: lost, IfRevision: holds.Revision.String()}
}
