package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"
)

var interopTools = []string{"interop-client", "interop-server"}

// interopCases is every case that grpc-go's interop client knows. Those that
// skips.txt names are run with -direct only, to see that they still fail there.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
	"status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service", "pick_first_unary",
	"orca_per_rpc", "orca_oob", caseRPCSoak, caseChannelSoak,
	"compute_engine_creds", "service_account_creds", "jwt_token_creds", "per_rpc_creds",
	"oauth2_auth_token", "google_default_credentials", "compute_engine_channel_credentials",
}

// The soak cases; the second opens a connection for every iteration and keeps
// them all to its end. Its iterations are shared out over runs of
// channelSoakRun: with 10,000 connections grpc-go's client spends seconds on
// its own garbage, and fails without a gateway too.
const (
	caseRPCSoak     = "rpc_soak"
	caseChannelSoak = "channel_soak"
	channelSoakRun  = 1000
)

// soakLatency bounds one iteration. The client's own default is one second,
// which says more of how busy the machine is than of a gateway's conformance.
const soakLatency = 5 * time.Second

const (
	interopLimit = 30 * time.Second // one ordinary case
	soakLimit    = 10 * time.Minute // one soak case
)

// runInterop puts the gateway between grpc-go's interop client and server.
func runInterop(ctx context.Context, r *rig, s suite) (tally, error) {
	var t tally
	server, err := freeAddr()
	if err != nil {
		return t, err
	}
	b := backend{name: "interop", address: server}
	_, port, _ := net.SplitHostPort(server)
	args := []string{"--port=" + port}
	if s.secure {
		b.ca = r.certs.ca
		args = append(args, "--use_tls", "--tls_cert_file="+r.certs.cert, "--tls_key_file="+r.certs.key)
	}
	p, err := r.start("interop-server", args...)
	if err != nil {
		return t, err
	}
	defer p.stop()
	if err := awaitListener(ctx, server, p); err != nil {
		return t, err
	}
	f, err := r.front(ctx, s.secure, server, nil, b)
	if err != nil {
		return t, err
	}
	for _, name := range interopCases {
		a, known := r.opts.skips.match(s.name, name)
		if known && !r.opts.direct {
			t.skip(name, a.reason)
			continue
		}
		err := runInteropCase(ctx, r, s, f.addr, name)
		switch {
		case err == nil:
			t.passed++
		case known:
			t.skip(name, a.reason)
		default:
			t.fail(name, err.Error())
		}
	}
	f.finish(ctx, false, &t)
	return t, nil
}

func runInteropCase(ctx context.Context, r *rig, s suite, addr, name string) error {
	switch name {
	case caseRPCSoak:
		return runInteropClient(ctx, r, s, addr, name, r.opts.soak, soakLimit)
	case caseChannelSoak:
		return runChannelSoak(ctx, r, s, addr)
	}
	return runInteropClient(ctx, r, s, addr, name, 0, interopLimit)
}

func runChannelSoak(ctx context.Context, r *rig, s suite, addr string) error {
	if err := roomFor(min(r.opts.soak, channelSoakRun)); err != nil {
		return err
	}
	for left := r.opts.soak; left > 0; left -= channelSoakRun {
		err := runInteropClient(ctx, r, s, addr, caseChannelSoak, min(left, channelSoakRun), soakLimit)
		if err != nil {
			return fmt.Errorf("with %d of %d iterations to go: %w", left, r.opts.soak, err)
		}
	}
	return nil
}

// runInteropClient runs the client for one case; only the soak cases heed iterations.
func runInteropClient(ctx context.Context, r *rig, s suite, addr, name string, iterations int, limit time.Duration) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	args := []string{
		"--server_host=" + host, "--server_port=" + port, "--test_case=" + name,
		// The ORCA cases read their reports through this policy; it changes no other.
		`--service_config_json={"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`,
	}
	if iterations > 0 {
		args = append(args,
			"--soak_iterations="+strconv.Itoa(iterations),
			"--soak_overall_timeout_seconds="+strconv.Itoa(int(limit.Seconds())),
			"--soak_per_iteration_max_acceptable_latency_ms="+strconv.FormatInt(soakLatency.Milliseconds(), 10))
	}
	if s.secure {
		args = append(args, "--use_tls", "--use_test_ca", "--ca_file="+r.certs.ca, "--server_host_override=localhost")
	}
	p, err := r.start("interop-client", args...)
	if err != nil {
		return err
	}
	return p.finish(ctx, limit)
}

// roomFor says plainly that the machine allows too few open files, where the
// case would fail with whatever the first refused dial said.
func roomFor(conns int) error {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("read limit of open files: %w", err)
	}
	if need := uint64(conns) + 200; lim.Max < need {
		return fmt.Errorf("limit of open files is %d, %d connections need %d (ulimit -n)", lim.Max, conns, need)
	}
	return nil
}

// awaitListener waits until a program that was just started takes connections.
func awaitListener(ctx context.Context, addr string, p *program) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if nc, err := net.Dial("tcp", addr); err == nil {
			return nc.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("server ended before it listened: %v\n%s", p.err, p.out)
		case <-ctx.Done():
			return fmt.Errorf("server not listening on %s after %s", addr, startTimeout)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
