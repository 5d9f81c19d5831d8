package main

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// gcPercent lets the heap grow to five times what is live before it is collected.
// What the gateway holds is small and what it allocates is short-lived, so that
// the default of 100 would collect ten times a second for a few megabytes.
const gcPercent = 400

// tuneMemory sets the collector's pace, unless the environment does, and a soft
// limit of three quarters of what the process may use, near which it collects
// as often as it must.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		if n := memoryAllowed(); n > 0 {
			debug.SetMemoryLimit(n / 4 * 3)
		}
	}
}

// memoryAllowed is what the control group, or else the machine, lets the process
// use, in bytes; 0 when neither says.
func memoryAllowed() int64 {
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n < math.MaxInt64/2 {
			return n
		}
	}
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}
