package admin

import (
	"fmt"
	"net"
	"net/http"
	"time"
)

// Config is what the operator decides about the door. The zero Config is valid.
type Config struct {
	// Listen is the address to listen on, host:port. Empty means 127.0.0.1:8081;
	// port 0 means any free one.
	Listen string

	// Pprof opens /debug/pprof/, from which a stranger reads memory and slows the
	// process down: it is off by default.
	Pprof bool

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

	// Version of the program, shown in the Server field of each answer.
	Version string
}

// Validate tells what is wrong with c.
func (c Config) Validate() error {
	if _, _, err := net.SplitHostPort(c.listen()); err != nil {
		return fmt.Errorf("admin.listen %q: want host:port", c.Listen)
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
