package hostile

import (
	"flag"
	"os"
	"testing"
)

// long makes attacks as large as they are in earnest.
var long = flag.Bool("hostile.long", false, "attack with full counts, for minutes")

// TestMain makes the test binary stand for a gateway when it is told to.
func TestMain(m *testing.M) {
	if encoded := os.Getenv(nodeVariable); encoded != "" {
		os.Exit(errNode(beNode(encoded)))
	}
	flag.Parse()
	os.Exit(m.Run())
}

// pick chooses a count by how much time there is.
func pick[T any](short, full T) T {
	if *long {
		return full
	}
	return short
}
