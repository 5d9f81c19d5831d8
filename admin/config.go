package admin

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"sluice/store"
)

// Config is what the operator decides about the door. The zero Config is valid.
type Config struct {
	// Listen is the address to listen on, host:port. Empty means 127.0.0.1:8081;
	// port 0 means any free one.
	Listen string

	// Pprof opens /debug/pprof/, from which a stranger reads memory and slows the
	// process down: it is off by default.
	Pprof bool

	// DataDir is where the node keeps what it keeps, and where the socket is. Empty
	// means that there is no socket.
	DataDir string

	// Hosts are the names, beside addresses of this machine and localhost, by which
	// the door may be called.
	Hosts []string

	// TLSCert and TLSKey are the PEM files of the door's certificate, both or
	// neither.
	TLSCert, TLSKey string

	// PasswordFile has the password of the account "admin", which is made, or given
	// that password, at the start. Empty means that there is no such account.
	PasswordFile string

	// ShutdownGrace bounds how long Run waits, once its context has ended, for the
	// answers that are under way. Zero means 5s; negative means not at all.
	ShutdownGrace time.Duration
}

// Parts are the parts of the program that the door shows.
type Parts struct {
	// Ready says why the program should get no new connections, or nil when it
	// should. The text is shown to whoever asks. It must not block. A nil Ready
	// means that the program is ready while it lives.
	Ready func() error

	// Metrics answers scrapes; nil means that there are none.
	Metrics http.Handler

	// Store has the resources, and what the door keeps for itself. Without it there
	// is no API.
	Store *store.Store

	// Gateway routes RPCs by what is in the store. The API needs it.
	Gateway Gateway

	// Leases keep the processes that announce themselves as endpoints. Without them
	// nobody can.
	Leases Leases

	// Cluster knows the other gateways. Nil means that this one is alone.
	Cluster Cluster

	// Problems are what is wrong with the node beside what the other parts say, in
	// sentences that status shows. It must not block; nil means that there are none.
	Problems func() []string

	// Port opens the ports. Nil means one that speaks HTTP/1 in clear text.
	Port func(PortConfig) (Port, error)

	// Version of the program, shown in the Server field of each answer.
	Version string
}

// Validate tells what is wrong with c.
func (c Config) Validate() error {
	if _, _, err := net.SplitHostPort(c.listen()); err != nil {
		return fmt.Errorf("admin.listen %q: want host:port", c.Listen)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("admin.tls: a certificate and its key come together")
	}
	return nil
}

func (c Config) listen() string {
	if c.Listen == "" {
		return "127.0.0.1:8081"
	}
	return c.Listen
}

func (c Config) shutdownGrace() time.Duration {
	if c.ShutdownGrace == 0 {
		return 5 * time.Second
	}
	return max(c.ShutdownGrace, 0)
}
