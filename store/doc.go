// Package store holds what the operator asked for: the resource types, the strict
// reading of the texts that declare them, and the store that keeps them. It is the
// vocabulary of intent: the gateway compiles it, peers replicate it, the admin side
// edits it.
//
// GRPCRoute and HTTPRoute are the Gateway API's, field by field, so that a pasted
// manifest is accepted; Backend and RPCPolicy are our own. A text is read whole or not at all: every fault
// of every document is reported, each with its place, and a text with a fault
// gives no object. What is read is in normal form: defaults are filled in, so
// that two texts which mean the same compare equal.
//
// The package opens no certificate and resolves no name: what a text refers to
// outside of itself is the business of whoever applies it.
package store
