package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// socketName is the socket's in the data directory.
const socketName = "admin.sock"

// SocketPath is where the socket of a data directory is.
func SocketPath(dataDir string) string { return filepath.Join(dataDir, socketName) }

// maxSocketPath is what the kernel takes (unix(7): sun_path, less its zero).
const maxSocketPath = 107

// socketListener accepts connections of processes that belong to the owner of this
// one, or to root. Whoever owns the data directory could change it without us;
// so on the socket nobody signs in.
type socketListener struct {
	*net.UnixListener
	path string
}

// listenSocket opens the socket of a data directory. One that a process left
// behind when it was killed is replaced; one that somebody answers on is not.
func listenSocket(dataDir string) (*socketListener, error) {
	path := SocketPath(dataDir)
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("open socket %s: a path of %d bytes, limit %d; choose a shorter data directory", path, len(path), maxSocketPath)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	// The data directory lets nobody else in, so none came before this.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("open socket: %w", err)
	}
	return &socketListener{UnixListener: l, path: path}, nil
}

// removeStale removes a socket on which nobody answers.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("open socket %s: there is something that is no socket; move it away", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("open socket %s: another process answers on it; end that, or choose another data directory", path)
	}
	return os.Remove(path)
}

// Accept returns the next connection of somebody who may enter.
func (l *socketListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		peer, err := credentials(conn)
		if err == nil && peer.mayEnter() {
			return &socketConn{UnixConn: conn, peer: peer}, nil
		}
		conn.Close()
	}
}

// socketConn has its peer's credentials for an address: the one thing that every
// server hands on to the requests of a connection.
type socketConn struct {
	*net.UnixConn
	peer Peer
}

// RemoteAddr names the process at the other end.
func (c *socketConn) RemoteAddr() net.Addr { return c.peer }

// Peer is the process at the other end of the socket, as the kernel names it.
type Peer struct {
	UID uint32
	PID int32
}

// Network is that of the address.
func (p Peer) Network() string { return "unix" }

// String is what peerOf reads.
func (p Peer) String() string { return fmt.Sprintf("uid %d pid %d", p.UID, p.PID) }

// mayEnter says whether the process belongs to the owner of this one, or to root.
func (p Peer) mayEnter() bool { return p.UID == 0 || int(p.UID) == os.Geteuid() }

// User is the name of the process's user, or its number when it has none.
func (p Peer) User() string {
	uid := strconv.FormatUint(uint64(p.UID), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}

type peerKey struct{}

// PeerFrom returns the process that sent a request over the socket. There is none
// behind a request that came by the network.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// fromSocket puts the peer of each request into its context. It stands behind the
// socket only: there the address is one that socketConn gave.
func fromSocket(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var p Peer
		if _, err := fmt.Sscanf(r.RemoteAddr, "uid %d pid %d", &p.UID, &p.PID); err != nil {
			writeText(w, http.StatusForbidden, "the socket's other end is unknown")
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, p)))
	})
}
