package main

import (
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"
)

func TestExplainListenSpeaksOfPortsOnly(t *testing.T) {
	port := &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EACCES}
	if got := explainListen(fmt.Errorf("open: %w", port), "--listen", ":443").Error(); !strings.Contains(got, "CAP_NET_BIND_SERVICE") {
		t.Errorf("of a port: %s", got)
	}
	file := &fs.PathError{Op: "open", Path: "gossip.key", Err: syscall.EACCES}
	if got := explainListen(fmt.Errorf("read: %w", file), "--gossip", ":7946"); got.Error() != "read: open gossip.key: permission denied" {
		t.Errorf("of a file: %s", got)
	}
}
