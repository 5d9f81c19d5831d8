//go:build !race

package policy

// raceEnabled tells that the race detector slows the tests down.
const raceEnabled = false
