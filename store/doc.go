// Package store holds what the operator asked for: the resource types, the strict
// reading of the texts that declare them, and the objects of a node, with their
// history, in one folder. It is the vocabulary of intent: the gateway compiles it,
// peers replicate it, the admin side edits it.
//
// GRPCRoute is the Gateway API's, field by field, so that a pasted manifest is
// accepted; Backend is our own. A text is read whole or not at all: every fault
// of every document is reported, each with its place, and a text with a fault
// gives no object. What is read is in normal form: defaults are filled in, so
// that two texts which mean the same compare equal. The package opens no
// certificate and resolves no name: what a text refers to outside of itself is the
// business of whoever applies it.
//
// A Store has the objects. Each has a Resource (what was declared), a State (what
// operators do beside the declaration: splits, drains, disabled), an Owner, and a
// Revision. One path leads into it, whoever the author: a plan is made of the
// operations (plan.go), checked as a whole, written to the disk in one transaction
// (write.go), and only then published as the next Snapshot. A Snapshot is immutable;
// Effective is what the gateway is to do of it. Every change is kept for a while
// (timeline.go), which is what Watch, History, Version and At read.
//
// A Registration is the one object that nobody declares: a process announces itself, and
// Leases (lease.go) ends it when nothing is heard any more. Which processes run is no
// wish, so that no rollback, restore or time travel touches registrations, and their
// changes are the first that the history forgets.
//
// One goroutine writes at a time, and whoever reads waits for nobody: a Snapshot is
// one atomic load. Locks are taken in the order Leases.writing, Store.writing, the
// disk's own, Store.mu; Leases.mu is held by nobody who waits for another. Nothing here is called on the path of an RPC.
package store
