// Package faults breaks what is behind the gateway and tells what its callers see.
//
// Everything is a real process: the gateway is the program built from this checkout,
// the backends are grpc-go servers in processes of their own, which are told by a pipe
// to be slow, to refuse, to hang, and which are stopped, killed and started again. The
// callers are grpc-go clients on connections of their own, who begin RPCs at a rate that
// does not wait for answers, and look at each answer: the nonce must be theirs, the name
// a backend's that is there.
//
// Each scenario prints one line: what was done, what callers saw, and what is wanted. It
// is MISS when that is not so, and INVALID when the load was not what was asked for, so
// that it proves nothing. `go test` runs a few of them, short; with SLUICE_FAULTS=1 it
// runs all, which takes some minutes of an idle machine:
//
//	make faults-backends
//	make faults-cluster
//
// The second is gateways that are peers, each on a machine of its own, which is a network
// namespace: the tests of TestPeer make the machines, the networks between them and what
// these lose. Where that is not permitted they are skipped.
//
// SLUICE_FAULTS_BINARY is a gateway to try in place of one that is built. Nothing of
// ours is imported, so that the two sides cannot share a mistake.
package faults
