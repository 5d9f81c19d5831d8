package gateway

import (
	"context"

	"sluice/gateway/observe"
	"sluice/gateway/upstream"
)

// Observation is what this gateway has seen of an endpoint, for the others of a cluster.
type Observation = upstream.Observation

// Observations waits until endpoints have fallen ill (down, ejected, stalled), or are well
// again, by what this gateway has found itself, and returns which: of each the newest, 1,000
// at most, ten times a second at most. It is nil when ctx is done. One goroutine calls it,
// again and again.
func (g *Gateway) Observations(ctx context.Context) []Observation { return g.pool.Observations(ctx) }

// Hint takes in what another gateway has seen of an endpoint of the backend "namespace/name".
// It is an opinion: this gateway looks for itself, at an endpoint once a second at most, at
// 100 a second in all, and what it finds counts. It waits for nobody.
func (g *Gateway) Hint(backend, address string, down bool) { g.pool.Hint(backend, address, down) }

// Reach finds out whether an endpoint of the backend "namespace/name" can be reached, until
// ctx is done. Nothing is thought otherwise of it for that.
func (g *Gateway) Reach(ctx context.Context, backend, address string) bool {
	return g.pool.Reach(ctx, backend, address)
}

// registerHints shows what became of hints.
func (g *Gateway) registerHints() {
	g.metrics.CounterVecFunc("sluice_hint_total", "What other gateways said of endpoints, by what became of it.", []string{"result"}, func(emit observe.Emit) {
		checked, known, dropped := g.pool.Hints()
		emit(float64(checked), "checked")
		emit(float64(known), "known")
		emit(float64(dropped), "dropped")
	})
}
