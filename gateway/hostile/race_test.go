//go:build race

package hostile

// raced is true under the race detector, which makes everything slow and large.
const raced = true
