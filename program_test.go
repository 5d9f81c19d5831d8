package main

import (
	"os"
	"path/filepath"
	"strconv"
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

// named is a folder with this test under the name of the program, for scripts.
func named(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "sluice")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// asked is a number of the environment, or else what is usual.
func asked(name string, usual int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return usual
}
