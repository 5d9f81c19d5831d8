package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// h2specCases is how many cases v2.2.1 has when it is strict.
const h2specCases = 146

// h2specTimeout is the tool's own default.
const h2specTimeout = 2 * time.Second

// runH2specSeam tries the engine's server half as a handler behind it sees it.
func runH2specSeam(ctx context.Context, r *rig, s suite) (tally, error) {
	return runH2spec(ctx, r, s, true, switchHandler)
}

// runH2specRelay sends every request through to a server that is not gRPC's.
func runH2specRelay(ctx context.Context, r *rig, s suite) (tally, error) {
	return runH2spec(ctx, r, s, false, switchRelay)
}

func runH2spec(ctx context.Context, r *rig, s suite, seam bool, mode string) (tally, error) {
	var t tally
	secure := r.certs.server()
	if !s.secure || !r.opts.direct {
		secure = nil
	}
	addr, stop, err := startPlain(secure)
	if err != nil {
		return t, err
	}
	defer stop()
	f, err := r.front(ctx, s.secure, addr, []string{mode}, backend{name: "plain", address: addr})
	if err != nil {
		return t, err
	}
	c, err := h2specConfig(f.addr, s.secure, r.opts.verbose)
	if err != nil {
		return t, err
	}
	for _, g := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		runGroup(ctx, g, c, &t)
	}
	f.finish(ctx, seam, &t)
	return t, nil
}

func h2specConfig(addr string, secure, verbose bool) (*config.Config, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	return &config.Config{
		Host:         host,
		Port:         n,
		Path:         "/conformance.Plain/Get", // the form of a gRPC method, so that a GRPCRoute takes it
		Timeout:      h2specTimeout,
		MaxHeaderLen: 4000, // the tool's own default
		Strict:       true,
		TLS:          secure,
		Insecure:     true,
		Verbose:      verbose,
	}, nil
}

// runGroup does what the group's own Test does, but goes on after a case that
// could not connect; Test would end the process.
func runGroup(ctx context.Context, g *spec.TestGroup, c *config.Config, t *tally) {
	for i, tc := range append(g.Tests, g.StrictTests...) {
		if ctx.Err() != nil {
			return
		}
		id := fmt.Sprintf("%s/%d", g.ID(), i+1)
		err := runCase(tc, c, i+1)
		t.h2spec(id, tc.Desc, tc.Requirement, err)
	}
	for _, sub := range g.Groups {
		runGroup(ctx, sub, c, t)
	}
}

// runCase also survives the suite's own panics: it prints an event that never came.
func runCase(tc *spec.TestCase, c *config.Config, seq int) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the suite panicked: %v", p)
		}
	}()
	if err := tc.Test(c, seq); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return tc.Result.Error
}

// h2spec counts one case of h2spec or h2specd.
func (t *tally) h2spec(id, desc, requirement string, err error) {
	var unmet *spec.TestError
	switch {
	case err == nil:
		t.passed++
	case errors.Is(err, spec.ErrSkipped):
		t.skip(id, desc)
	case errors.As(err, &unmet) && closedByReset(unmet):
		t.passed++
	case errors.As(err, &unmet):
		t.fail(id, fmt.Sprintf("%s\n%s\nexpected: %q\ngot: %s", desc, requirement, unmet.Expected, unmet.Actual))
	default:
		t.fail(id, fmt.Sprintf("%s\n%s\ngot: %v", desc, requirement, err))
	}
}

// closedByReset knows a connection that was closed as the suite asked, but by a
// TCP reset. The suite takes that for closed too, and looks for it in a place
// from which Go has since moved it.
func closedByReset(unmet *spec.TestError) bool {
	return slices.Contains(unmet.Expected, spec.ExpectedConnectionClosed) &&
		strings.HasSuffix(unmet.Actual, syscall.ECONNRESET.Error())
}
