package balance

import "github.com/cespare/xxhash/v2"

// Hash makes a Request's Key of what an RPC is told apart by. It is XXH64 with seed 0,
// the same in every process and version: gateways side by side have to agree.
func Hash(s string) uint64 { return xxhash.Sum64String(s) }

// HashBytes is Hash of the same bytes.
func HashBytes(p []byte) uint64 { return xxhash.Sum64(p) }

// mix scrambles 64 bits: each bit of the result depends on each of them. It is the
// finalizer of MurmurHash3.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
