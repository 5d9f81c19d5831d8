package admin

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dialAs connects as another user: the kernel takes the credentials of the thread,
// and a locked thread that has changed them ends with its goroutine.
func dialAs(path string, uid uintptr) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // for good
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
			done <- result{nil, errno}
			return
		}
		conn, err := net.Dial("unix", path)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// Even where the mode of the socket lets others in, their credentials do not.
func TestSocketRefusesOtherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	dir := t.TempDir()
	l, err := listenSocket(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.Chmod(SocketPath(dir), 0o666)); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	stranger, err := dialAs(SocketPath(dir), 65534)
	if err != nil {
		t.Skipf("cannot connect as somebody else: %v", err)
	}
	defer stranger.Close()
	stranger.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := stranger.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a stranger reads %d bytes, error %v, want EOF", n, err)
	}
	root, err := net.Dial("unix", SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	conn := <-accepted
	if got, want := conn.RemoteAddr(), (Peer{UID: 0, PID: int32(os.Getpid())}); got != want {
		t.Errorf("the peer is %v, want %v", got, want)
	}
	conn.Close()
	l.Close()
	for range accepted {
	}
}
