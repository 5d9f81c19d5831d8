package admin

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

func TestSocketTrustsItsOwner(t *testing.T) {
	n := startNode(t)
	info, err := os.Stat(SocketPath(n.dir))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	resp, err := n.access.WhoAmI(t.Context(), connect.NewRequest(&adminv1.WhoAmIRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	me := Peer{UID: uint32(os.Getuid())}.User()
	if resp.Msg.GetActor() != "local "+me || resp.Msg.GetRole() != adminv1.Role_ROLE_ADMIN {
		t.Errorf("the socket takes me for %v", resp.Msg)
	}
}

func TestPeerMayEnter(t *testing.T) {
	own := uint32(os.Geteuid())
	for uid, want := range map[uint32]bool{0: true, own: true, own + 1: false} {
		if got := (Peer{UID: uid}).mayEnter(); got != want {
			t.Errorf("user %d: %v, want %v", uid, got, want)
		}
	}
}

// A socket that a process left behind is replaced; one that is in use, and what is
// no socket, are left alone.
func TestSocketReplacesAStaleOne(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: SocketPath(dir), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(dir); err == nil || !strings.Contains(err.Error(), "another process answers on it") {
		t.Errorf("in use: %v", err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := listenSocket(dir)
	if err != nil {
		t.Fatalf("stale: %v", err)
	}
	again.Close()
	if _, err := os.Lstat(SocketPath(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}

	if err := os.WriteFile(SocketPath(dir), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(dir); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file: %v", err)
	}
	if _, err := listenSocket(filepath.Join(dir, strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "limit 107") {
		t.Errorf("a long path: %v", err)
	}
}
