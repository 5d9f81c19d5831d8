package admin

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// pipeListener accepts connections that have no network under them, so that a
// synctest bubble sees all that happens.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newPipeListener() *pipeListener {
	closed := make(chan struct{})
	return &pipeListener{
		conns:  make(chan net.Conn),
		closed: closed,
		close:  sync.OnceFunc(func() { close(closed) }),
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.close()
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial is the client's end of a new connection.
func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

// door is an Admin that runs, over pipes.
type door struct {
	*pipeListener
	log   *journal
	stop  context.CancelFunc
	ended chan error
}

// open runs a door until the test ends.
func open(t *testing.T, cfg Config, parts Parts) *door {
	t.Helper()
	d := &door{pipeListener: newPipeListener(), log: new(journal), ended: make(chan error, 1)}
	a, err := newAdmin(cfg, parts, slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug})), d)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	d.stop = stop
	go func() { d.ended <- a.Run(ctx); close(d.ended) }()
	t.Cleanup(func() {
		stop()
		<-d.ended
	})
	return d
}

// ask sends one request on a connection of its own and reads the answer.
func (d *door) ask(t *testing.T, method, target string) (*http.Response, string) {
	t.Helper()
	return d.send(t, method+" "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

func (d *door) send(t *testing.T, request string) (*http.Response, string) {
	t.Helper()
	conn := d.dial()
	defer conn.Close()
	go io.WriteString(conn, request) // a pipe has no buffer: the answer may come before all is read
	return receive(t, conn, strings.Fields(request)[0])
}

func receive(t *testing.T, conn net.Conn, method string) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// journal keeps what was logged.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}
