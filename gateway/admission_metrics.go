package gateway

import "sluice/gateway/observe"

// registerAdmission shows what limits have let in, and what not.
func (g *Gateway) registerAdmission() {
	m := g.metrics
	guards := func(f func(*guard)) {
		for _, guard := range g.table.Load().guards {
			if guard != nil {
				f(guard)
			}
		}
	}
	m.CounterVecFunc("sluice_retry_total", "Wishes to send an RPC again, by what became of them.", []string{"backend", "result"}, func(emit observe.Emit) {
		guards(func(guard *guard) {
			for answer, name := range retryAnswerNames {
				emit(float64(guard.retries[answer].Load()), guard.key, name)
			}
		})
	})
	m.CounterVecFunc("sluice_backend_full_total", "RPCs that came when the backend had as many as it may.", []string{"backend", "bound"}, func(emit observe.Emit) {
		guards(func(guard *guard) {
			for bound, name := range boundNames {
				emit(float64(guard.full[bound].Load()), guard.key, name)
			}
		})
	})
	m.GaugeVecFunc("sluice_backend_adaptive_limit", "How many RPCs the backend may have at once, as found from how long they take.", []string{"backend"}, func(emit observe.Emit) {
		guards(func(guard *guard) {
			if b := guard.bounds.Load(); b != nil && b.gradient != nil {
				emit(float64(b.gradient.Limit()), guard.key)
			}
		})
	})
	m.CounterVecFunc("sluice_limited_total", "RPCs over a rate limit of their rule.", []string{"route", "rule"}, func(emit observe.Emit) {
		for _, gate := range g.table.Load().gates {
			emit(float64(gate.limited.Load()), gate.key.route, gate.key.rule)
		}
	})
	m.GaugeFunc("sluice_limit_gateways", "How many gateways share the limits of scope Cluster, this one included.", nil, func() float64 { return float64(g.share.Live()) })
	m.GaugeFunc("sluice_memory_short", "1 while nothing new begins because memory is short.", nil, func() float64 {
		if g.memory.Short() {
			return 1
		}
		return 0
	})
	m.CounterFunc("sluice_memory_short_total", "How often memory has become short.", nil, func() float64 { return float64(g.memory.Times()) })
}
