package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"sluice/store"
)

// TestMain makes the test binary stand for the program: under the name sluice
// it is the command line, so that scripts can be run as a user types them.
func TestMain(m *testing.M) {
	newGateway = newStandin
	if filepath.Base(os.Args[0]) == "sluice" {
		main()
		return
	}
	os.Exit(m.Run())
}

// standin takes the place of the gateway in the tests of what surrounds it.
// It relays whole connections to the first endpoint of the first backend.
type standin struct {
	ln    net.Listener
	cert  *tls.Certificate // nil means no TLS
	mu    sync.Mutex       // guards the fields below
	set   *store.Set
	conns map[net.Conn]bool
	ready error
}

func newStandin(cfg *config, _ *slog.Logger) (gatewayPart, error) {
	s := &standin{conns: map[net.Conn]bool{}}
	if cfg.tlsCert != "" {
		pair, err := tls.LoadX509KeyPair(cfg.tlsCert, cfg.tlsKey)
		if err != nil {
			return nil, err
		}
		s.cert = &pair
	}
	var err error
	s.ln, err = net.Listen("tcp", cfg.listen)
	return s, err
}

func (s *standin) Apply(set *store.Set) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set = set
	return nil
}

func (s *standin) ReloadCertificates() error { return nil }
func (s *standin) Addr() net.Addr            { return s.ln.Addr() }

func (s *standin) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "sluice_rpc_ended_total 1\n")
	})
}

func (s *standin) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

func (s *standin) Run(ctx context.Context) error {
	var open sync.WaitGroup
	defer open.Wait()
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ready = errors.New("draining")
		s.ln.Close()
		for conn := range s.conns {
			conn.Close()
		}
	})
	for {
		conn, err := s.ln.Accept()
		if err != nil {
			return nil
		}
		open.Go(func() { s.relay(conn) })
	}
}

func (s *standin) relay(client net.Conn) {
	if !s.keep(client) {
		return
	}
	defer client.Close()
	br := bufio.NewReader(client)
	var in io.ReadWriter = struct {
		io.Reader
		io.Writer
	}{br, client}
	if first, err := br.Peek(1); err == nil && first[0] == 22 && s.cert != nil { // a TLS handshake record
		in = tls.Server(replay{client, br}, &tls.Config{
			Certificates: []tls.Certificate{*s.cert},
			NextProtos:   []string{"h2"},
		})
	}
	s.mu.Lock()
	address := s.set.Backends[0].Spec.Endpoints[0].Address
	s.mu.Unlock()
	server, err := net.Dial("tcp", address)
	if err != nil || !s.keep(server) {
		return
	}
	defer server.Close()
	go func() {
		io.Copy(server, in)
		server.Close()
	}()
	io.Copy(in, server)
}

// keep registers a connection for closing, or closes it when it is too late.
func (s *standin) keep(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready != nil {
		conn.Close()
		return false
	}
	s.conns[conn] = true
	return true
}

// replay is a connection whose first bytes have been peeked at.
type replay struct {
	net.Conn
	io.Reader
}

func (r replay) Read(b []byte) (int, error) { return r.Reader.Read(b) }
