//go:build !race

package rest

// raceEnabled tells that the race detector slows the tests down.
const raceEnabled = false
