//go:build race

package gateway

// raceEnabled tells that the race detector slows the tests down.
const raceEnabled = true
