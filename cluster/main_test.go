package cluster

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain refuses goroutines, ours and memberlist's, that outlive the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := goroutinesLeft(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines are left:\n\n"+left)
		code = 1
	}
	os.Exit(code)
}

// goroutinesLeft waits for those of memberlist, whose probes end a while after it.
func goroutinesLeft() (left string) {
	for range 150 {
		left = ""
		all := make([]byte, 1<<20)
		for _, g := range strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n") {
			if !strings.Contains(g, "goroutinesLeft") && (strings.Contains(g, "sluice/") || strings.Contains(g, "hashicorp/memberlist")) {
				left += g + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
		<-time.After(100 * time.Millisecond)
	}
	return left
}
