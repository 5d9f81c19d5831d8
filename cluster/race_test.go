//go:build race

package cluster

// raceDetector tells that everything takes ten times as long.
const raceDetector = true
