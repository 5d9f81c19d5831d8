//go:build !race

package store

// raceDetector tells that everything takes ten times as long.
const raceDetector = false
