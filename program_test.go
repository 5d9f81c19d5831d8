package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMain makes the test binary stand for the program: under the name sluice
// it is the command line, so that scripts can be run as a user types them.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "sluice" {
		main()
		return
	}
	os.Exit(m.Run())
}
