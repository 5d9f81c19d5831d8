package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/summerwind/h2spec/client"
	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/spec"
	"golang.org/x/net/http2"
)

// h2specdCases is how many cases v2.2.1 has for a client.
const h2specdCases = 57

// h2specdAtOnce bounds the cases that run together: most of a case is waiting.
const h2specdAtOnce = 8

// clientCase is a server that breaks one rule of HTTP/2 on each connection
// that it gets, and watches how the client takes it.
type clientCase struct {
	id      string
	service string
	tc      *spec.ClientTestCase
	l       net.Listener
	results chan error // one of each connection
}

// runH2specd puts all of these servers behind one gateway, each as the Backend
// of a service of its own, and calls each once.
func runH2specd(ctx context.Context, r *rig, s suite) (tally, error) {
	var t tally
	cases, err := listenCases(client.Spec())
	if err != nil {
		return t, err
	}
	c := &config.Config{Host: "127.0.0.1", Timeout: h2specTimeout, MaxHeaderLen: 4000, TLS: s.secure, Verbose: r.opts.verbose}
	var behind []backend
	for i, cc := range cases {
		defer cc.l.Close()
		b := backend{name: fmt.Sprintf("case-%d", i+1), address: cc.l.Addr().String(), service: cc.service}
		var wrap *tls.Config
		if s.secure {
			b.ca, wrap = r.certs.ca, r.certs.server()
		}
		behind = append(behind, b)
		go cc.serve(c, wrap)
	}
	f, err := r.front(ctx, s.secure, "", []string{switchRelay}, behind...)
	if err != nil {
		return t, err
	}
	callAll(ctx, r, s, f, cases, &t)
	f.finish(ctx, false, &t)
	return t, nil
}

// listenCases gives every case of the group and of those under it a port.
func listenCases(g *spec.ClientTestGroup) ([]*clientCase, error) {
	var cases []*clientCase
	for i, tc := range g.Tests {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		cases = append(cases, &clientCase{
			id:      fmt.Sprintf("%s/%d", g.ID(), i+1),
			service: fmt.Sprintf("h2specd.Section%s.Case%d", strings.ReplaceAll(g.Section, ".", "_"), i+1),
			tc:      tc,
			l:       l,
			results: make(chan error, 64),
		})
	}
	for _, sub := range g.Groups {
		below, err := listenCases(sub)
		if err != nil {
			return nil, err
		}
		cases = append(cases, below...)
	}
	return cases, nil
}

// serve runs the case on each connection until the listener closes.
func (cc *clientCase) serve(c *config.Config, secure *tls.Config) {
	for {
		nc, err := cc.l.Accept()
		if err != nil {
			return
		}
		go func() {
			if secure != nil {
				nc = tls.Server(nc, secure)
			}
			cc.results <- cc.run(c, nc)
		}()
	}
}

func (cc *clientCase) run(c *config.Config, nc net.Conn) (err error) {
	defer nc.Close()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the suite panicked: %v", p)
		}
	}()
	conn, err := spec.Accept(c, nc)
	if err != nil {
		return err
	}
	err = cc.tc.Run(c, conn)
	if !conn.Closed {
		conn.WriteGoAway(0, http2.ErrCodeNo, nil)
	}
	return err
}

func callAll(ctx context.Context, r *rig, s suite, f *front, cases []*clientCase, t *tally) {
	var mu sync.Mutex // guards t
	var wg sync.WaitGroup
	slots := make(chan struct{}, h2specdAtOnce)
	for _, cc := range cases {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			err := cc.call(ctx, r, s, f)
			mu.Lock()
			defer mu.Unlock()
			t.h2spec(cc.id, cc.tc.Desc, cc.tc.Requirement, err)
		})
	}
	wg.Wait()
}

// call makes one RPC that the case's server will spoil and returns what that
// server thought of its client. How the RPC ends does not matter, but that it
// ends does.
func (cc *clientCase) call(ctx context.Context, r *rig, s suite, f *front) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	addr := f.addr
	if addr == "" {
		addr = cc.l.Addr().String()
	}
	ended := make(chan error, 1)
	go func() { ended <- callOnce(ctx, addr, s.secure, r.certs, cc.service) }()

	verdict := cc.verdict(ctx)
	if verdict != nil {
		return verdict
	}
	// The server has had its say, so the caller must hear of an end too.
	select {
	case err := <-ended:
		if ctx.Err() != nil {
			return fmt.Errorf("the server was content, but the RPC did not end: %w", err)
		}
		return nil
	case <-ctx.Done():
		return errors.New("the server was content, but the RPC did not end")
	}
}

// verdict is what the first connection with a request on it came to. A
// connection that the client opened and left idle says nothing of the case.
func (cc *clientCase) verdict(ctx context.Context) error {
	idle := errors.New("no connection")
	for {
		select {
		case err := <-cc.results:
			if err == nil || !leftIdle(err) {
				return err
			}
			idle = err
		case <-ctx.Done():
			return idle
		}
	}
}

// leftIdle knows the suite's word for a request that never came.
func leftIdle(err error) bool { return strings.Contains(err.Error(), "No HEADER frame received") }

// callOnce gets one page and reads whatever comes back. It is no gRPC call, and
// has to be relayed by the switch: these servers answer like web servers, and
// the gateway gives up a gRPC call at the first header of such an answer, before
// the server has broken its rule.
func callOnce(ctx context.Context, addr string, secure bool, c *certs, service string) error {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	scheme := "https"
	if !secure {
		protocols.SetHTTP2(false)
		protocols.SetUnencryptedHTTP2(true)
		scheme = "http"
	}
	tr := &http.Transport{Protocols: &protocols, TLSClientConfig: c.client()}
	defer tr.CloseIdleConnections()
	url := fmt.Sprintf("%s://%s/%s/Call", scheme, addr, service)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
