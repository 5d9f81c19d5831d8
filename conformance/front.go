package main

import "context"

// front is where a suite's client connects: the gateway, or, with -direct, the
// server that would stand behind it.
type front struct {
	addr string
	gw   *gateway // nil with -direct
}

// front starts a gateway before the backends. server is the address that the
// suite's client is given when there is to be no gateway.
func (r *rig) front(ctx context.Context, secure bool, server string, env []string, behind ...backend) (*front, error) {
	if r.opts.direct {
		return &front{addr: server}, nil
	}
	c := gatewayConfig{sluice: r.opts.sluice, resources: resources(behind...), env: env, log: r.log}
	if secure {
		c.cert, c.key = r.certs.cert, r.certs.key
	}
	gw, err := startGateway(ctx, c)
	if err != nil {
		return nil, err
	}
	return &front{addr: gw.listen, gw: gw}, nil
}

// finish stops the gateway and adds to the failures an RPC that took the wrong
// path, and a gateway that did not live to the end or would not end.
func (f *front) finish(ctx context.Context, seam bool, t *tally) {
	if f.gw == nil {
		return
	}
	p, err := f.gw.paths(ctx)
	if err == nil {
		err = p.check(seam)
	}
	if err != nil {
		t.fail("path", err.Error())
	}
	if err := f.gw.stop(); err != nil {
		t.fail("stop", err.Error())
	}
}
