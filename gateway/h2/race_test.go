//go:build race

package h2

// raceEnabled is true where sync.Pool drops at random, so that nothing can be said
// of allocations.
const raceEnabled = true
