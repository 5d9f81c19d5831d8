package main

import (
	"context"
	"fmt"
	"net"
	"time"
)

var negativeTools = []string{"negative-client", "interop-client"}

// negativeCase is one case of grpc's negative HTTP/2 interop descriptions
// (doc/http2-interop-test-descriptions.md there): what its server does to a
// unary call. grpc-go brings the client and no server; negative_server.go is ours.
type negativeCase struct {
	name   string
	client string // the tool that plays the client
	args   string // the case's name there

	rst        rstPoint
	goaway     bool   // after each answer; the next call needs another connection
	ping       bool   // around every step of an answer
	maxStreams uint32 // zero sets no limit
	chunk, pad int    // of each DATA frame, bytes; zero chunk means 16 KiB
}

// rstPoint is where in its answer the server resets the stream, with NO_ERROR.
type rstPoint int

const (
	rstNever rstPoint = iota
	rstAfterHeader
	rstDuringData
	rstAfterData
)

var negativeCases = []negativeCase{
	{name: "goaway", client: "negative-client", args: "goaway", goaway: true},
	{name: "rst_after_header", client: "negative-client", args: "rst_after_header", rst: rstAfterHeader},
	{name: "rst_during_data", client: "negative-client", args: "rst_during_data", rst: rstDuringData},
	{name: "rst_after_data", client: "negative-client", args: "rst_after_data", rst: rstAfterData},
	{name: "ping", client: "negative-client", args: "ping", ping: true},
	{name: "max_streams", client: "negative-client", args: "max_streams", maxStreams: 1},
	{name: "data_frame_padding", client: "interop-client", args: "large_unary", chunk: 5, pad: 255},
	{name: "no_df_padding_sanity_test", client: "interop-client", args: "large_unary", chunk: 5},
}

// runNegative starts a gateway for each case: the client cannot say which one
// it is in any way that a route could tell apart.
func runNegative(ctx context.Context, r *rig, s suite) (tally, error) {
	var t tally
	for _, c := range negativeCases {
		err := runNegativeCase(ctx, r, s, c, &t)
		a, known := r.opts.skips.match(s.name, c.name)
		switch {
		case err == nil:
			t.passed++
		case known:
			t.skip(c.name, a.reason)
		default:
			t.fail(c.name, err.Error())
		}
	}
	return t, nil
}

func runNegativeCase(ctx context.Context, r *rig, s suite, c negativeCase, t *tally) error {
	srv, err := startNegative(c)
	if err != nil {
		return err
	}
	defer srv.stop()
	addr := srv.l.Addr().String()
	f, err := r.front(ctx, s.secure, addr, nil, backend{name: "negative", address: addr})
	if err != nil {
		return err
	}
	defer f.finish(ctx, false, t)
	host, port, err := net.SplitHostPort(f.addr)
	if err != nil {
		return err
	}
	p, err := r.start(c.client, "--server_host="+host, "--server_port="+port, "--test_case="+c.args)
	if err != nil {
		return err
	}
	if err := p.finish(ctx, interopLimit); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if err := srv.verdict(2 * time.Second); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}
