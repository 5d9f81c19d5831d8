package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

// unaryTimeout bounds one question to the server. The server itself waits at most
// 2 s for a change to be in force, and 10 s for peers; the rest is for a large text and a
// busy disk.
const unaryTimeout = 30 * time.Second

// client is a connection to one server.
type client struct {
	at        *target
	transport *http.Transport

	resources adminv1.ResourceServiceClient
	node      adminv1.NodeServiceClient
	access    adminv1.AccessServiceClient
	schemas   adminv1.SchemaServiceClient
	backends  adminv1.BackendServiceClient
	cluster   adminv1.ClusterServiceClient
}

// newClient connects to nothing yet. Whoever has it closes it.
func newClient(at *target, version string) (*client, error) {
	config, err := at.tls()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig:     config,
		ForceAttemptHTTP2:   true,
	}
	if at.socket != "" {
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", at.socket)
		}
	}
	h := &http.Client{
		Transport: &signer{at: at, agent: "sluice-cli/" + version, next: transport},
		// The token is for this server alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	deadline := connect.WithInterceptors(connect.UnaryInterceptorFunc(bounded))
	return &client{
		at: at, transport: transport,
		resources: adminv1.NewResourceServiceClient(h, at.url, deadline),
		node:      adminv1.NewNodeServiceClient(h, at.url, deadline),
		access:    adminv1.NewAccessServiceClient(h, at.url, deadline),
		schemas:   adminv1.NewSchemaServiceClient(h, at.url, deadline),
		backends:  adminv1.NewBackendServiceClient(h, at.url, deadline),
		cluster:   adminv1.NewClusterServiceClient(h, at.url, deadline),
	}, nil
}

func (c *client) close() { c.transport.CloseIdleConnections() }

// bounded gives each unary call its deadline.
func bounded(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, unaryTimeout)
		defer cancel()
		return next(ctx, request)
	}
}

// signer tells the server who is there.
type signer struct {
	at    *target
	agent string
	next  *http.Transport
}

func (s *signer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", s.agent)
	if s.at.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.at.token)
	}
	response, err := s.next.RoundTrip(r)
	if err == nil && s.at.socket == "" && wantsTLS(response) {
		response.Body.Close()
		return nil, errWantsTLS
	}
	return response, err
}

// errWantsTLS is a port that was spoken to in clear text.
var errWantsTLS = errors.New("that port takes TLS only")

// wantsTLS tells whether a server refused clear text, whatever server it is: those
// that do answer one line, before they know what was asked for.
func wantsTLS(response *http.Response) bool {
	if response.StatusCode != http.StatusBadRequest || response.Request.URL.Scheme != "http" ||
		strings.HasPrefix(response.Header.Get("Content-Type"), "application/") { // the API's own
		return false
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10)) // what comes is enough
	return bytes.Contains(body, []byte("TLS")) || bytes.Contains(body, []byte("HTTPS"))
}

// ask sends one request and returns the message of the answer.
func ask[Req, Res any](ctx context.Context, method func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error), request *Req) (*Res, error) {
	response, err := method(ctx, connect.NewRequest(request))
	if err != nil {
		return nil, err
	}
	return response.Msg, nil
}
