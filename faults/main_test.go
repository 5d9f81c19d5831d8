package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// What the environment says.
const (
	longVariable   = "SLUICE_FAULTS"         // 1 runs everything, at full length
	binaryVariable = "SLUICE_FAULTS_BINARY"  // the gateway, built already
	backendRole    = "SLUICE_FAULTS_BACKEND" // makes this binary a backend
)

// long tells whether everything is to run, at full length.
var long = os.Getenv(longVariable) == "1"

// length is how long a phase lasts: short in `go test`.
func length(full, short time.Duration) time.Duration {
	if long {
		return full
	}
	return short
}

// times is how often something is done: short in `go test`.
func times(full, short int) int {
	if long {
		return full
	}
	return short
}

// longOnly leaves a scenario out of `go test`.
func longOnly(t *testing.T) {
	t.Helper()
	if !long {
		t.Skip("runs with " + longVariable + "=1")
	}
}

// workDir is where the gateway's program and the files of all processes are.
var workDir string

func TestMain(m *testing.M) {
	if config := os.Getenv(backendRole); config != "" {
		if err := playBackend(config); err != nil {
			fmt.Fprintln(os.Stderr, "backend:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(holderRole) != "" {
		if err := playHolder(); err != nil {
			fmt.Fprintln(os.Stderr, "holder:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) (code int) {
	var err error
	if workDir, err = os.MkdirTemp("", "sluice-faults-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(workDir)
	return m.Run()
}

// program is the gateway's, built once from the checkout around this package.
var program = sync.OnceValues(func() (string, error) {
	if given := os.Getenv(binaryVariable); given != "" {
		return filepath.Abs(given)
	}
	file := filepath.Join(workDir, "sluice")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, ".")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("build the gateway: %s", said), err)
	}
	return file, nil
})
