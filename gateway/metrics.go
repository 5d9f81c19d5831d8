package gateway

import (
	"sluice/gateway/h2"
	"sluice/gateway/observe"
	"sluice/gateway/upstream"
)

// register shows the engine's, the pool's and the listener's own counters. They
// are read when somebody asks, so nothing is counted twice on the way of an RPC.
func (g *Gateway) register() {
	m := g.metrics
	m.CounterVecFunc("sluice_rpc_path_total", "RPCs and requests by the path they took.", []string{"path"}, func(emit observe.Emit) {
		emit(float64(g.relayed.Load()), "relay")
		emit(float64(g.handled.Load()), "handler")
	})
	m.CounterVecFunc("sluice_request_total", "RPCs and requests by the protocol that they came in.", []string{"protocol"}, func(emit observe.Emit) {
		web := g.relayedWeb.Load()
		for p := range numProtocols {
			n := g.spoken[p].Load()
			switch p {
			case protoGRPC:
				n += g.relayed.Load() - web
			case protoWeb:
				n += web
			}
			emit(float64(n), protocolNames[p])
		}
	})
	m.CounterVecFunc("sluice_rpc_outcome_total", "RPCs by how they ended, as the gateway saw it.", []string{"outcome"}, func(emit observe.Emit) {
		for o := range numOutcomes {
			emit(float64(g.ended[o].Load()), o.String())
		}
	})
	m.CounterFunc("sluice_rpc_moved_total", "RPCs sent to another connection because the first never acted on them.", nil, func() float64 { return float64(g.moved.Load()) })
	m.GaugeFunc("sluice_rpc_kept_bytes", "Request bytes kept for a second try.", nil, func() float64 { return float64(g.kept.Load()) })
	m.GaugeFunc("sluice_stream_queued_bytes", "Bytes that wait for peers that do not take them.", nil, func() float64 { return float64(g.engine.Queued()) })
	m.CounterVecFunc("sluice_listener_conn_total", "Connections at the port, by what became of them before HTTP.", []string{"fate"}, func(emit observe.Emit) {
		for _, c := range g.listener.Counters() {
			emit(float64(c.Value()), c.Name)
		}
	})
	m.CounterFunc("sluice_listener_certificate_errors_total", "Certificate files that were read and could not be used; the last good ones stayed.", nil, func() float64 { return float64(g.listener.CertificateErrors()) })
	m.GaugeFunc("sluice_listener_certificate_expiry_timestamp_seconds", "When the certificate in use expires, in Unix time; 0 without TLS.", nil, func() float64 {
		if at := g.listener.CertificateExpiry(); !at.IsZero() {
			return float64(at.Unix())
		}
		return 0
	})
	g.registerEngine()
	g.registerPool()
	g.registerDiscovery()
	g.registerAdmission()
	g.registerHints()
	g.tunnels.register(m)
}

func (g *Gateway) registerEngine() {
	m := g.metrics
	side := []string{"side"}
	each := func(f func(h2.Side, h2.Counts)) {
		for _, s := range []h2.Side{h2.Downstream, h2.Upstream} {
			f(s, g.engine.Counts(s))
		}
	}
	m.GaugeVecFunc("sluice_conn_open", "HTTP/2 connections open now.", side, func(emit observe.Emit) {
		each(func(s h2.Side, c h2.Counts) { emit(float64(c.Open), s.String()) })
	})
	m.CounterVecFunc("sluice_conn_opened_total", "HTTP/2 connections opened.", side, func(emit observe.Emit) {
		each(func(s h2.Side, c h2.Counts) { emit(float64(c.Opened), s.String()) })
	})
	m.GaugeVecFunc("sluice_stream_open", "HTTP/2 streams open now.", side, func(emit observe.Emit) {
		each(func(s h2.Side, c h2.Counts) { emit(float64(c.Streams), s.String()) })
	})
	m.CounterVecFunc("sluice_bytes_total", "Bytes of HTTP/2 frames.", []string{"side", "direction"}, func(emit observe.Emit) {
		each(func(s h2.Side, c h2.Counts) {
			emit(float64(c.BytesIn), s.String(), "in")
			emit(float64(c.BytesOut), s.String(), "out")
		})
	})
	reasons := []string{"side", "reason"}
	m.CounterVecFunc("sluice_conn_closed_total", "HTTP/2 connections ended, by reason.", reasons, func(emit observe.Emit) {
		each(func(s h2.Side, c h2.Counts) {
			for r, n := range c.Closed {
				emit(float64(n), s.String(), r)
			}
		})
	})
	m.CounterVecFunc("sluice_stream_rejected_total", "HTTP/2 streams that the gateway refused or ended, by reason.", reasons, func(emit observe.Emit) {
		each(func(s h2.Side, c h2.Counts) {
			for r, n := range c.Rejected {
				emit(float64(n), s.String(), r)
			}
		})
	})
}

func (g *Gateway) registerPool() {
	m := g.metrics
	labels := []string{"backend", "endpoint"}
	each := func(value func(*upstream.Endpoint) float64) func(observe.Emit) {
		return func(emit observe.Emit) {
			g.pool.Endpoints(func(e *upstream.Endpoint) { emit(value(e), e.Backend(), e.Address()) })
		}
	}
	m.GaugeVecFunc("sluice_endpoint_active", "RPCs open on the endpoint.", labels, each(func(e *upstream.Endpoint) float64 { return float64(e.Active()) }))
	m.GaugeVecFunc("sluice_endpoint_connections", "Connections to the endpoint that take streams.", labels, each(func(e *upstream.Endpoint) float64 { return float64(e.Connections()) }))
	m.GaugeVecFunc("sluice_endpoint_usable", "1 when nothing speaks against the endpoint, as far as is known.", labels, each(func(e *upstream.Endpoint) float64 {
		if e.Usable() {
			return 1
		}
		return 0
	}))
	m.CounterVecFunc("sluice_endpoint_dial_failures_total", "Connections to the endpoint that could not be made.", labels, each(func(e *upstream.Endpoint) float64 {
		_, failed := e.Dials()
		return float64(failed)
	}))
	m.CounterVecFunc("sluice_endpoint_ejections_total", "Times that the endpoint was ejected for what its RPCs ended with.", labels, each(func(e *upstream.Endpoint) float64 {
		ejected, _ := e.Ejections()
		return float64(ejected)
	}))
	m.CounterVecFunc("sluice_endpoint_ejections_spared_total", "Times that the endpoint was not ejected because too many were.", labels, each(func(e *upstream.Endpoint) float64 {
		_, spared := e.Ejections()
		return float64(spared)
	}))
	m.CounterVecFunc("sluice_endpoint_checks_total", "Health checks of the endpoint, by result.", []string{"backend", "endpoint", "result"}, func(emit observe.Emit) {
		g.pool.Endpoints(func(e *upstream.Endpoint) {
			passed, failed := e.Checks()
			emit(float64(passed), e.Backend(), e.Address(), "passed")
			emit(float64(failed), e.Backend(), e.Address(), "failed")
		})
	})
	m.GaugeVecFunc("sluice_endpoint_states", "Endpoints of the backend, by state.", []string{"backend", "state"}, func(emit observe.Emit) {
		for backend, states := range g.pool.States() {
			for state, n := range states {
				emit(float64(n), backend, state)
			}
		}
	})
}
