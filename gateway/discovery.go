package gateway

import (
	"errors"
	"maps"
	"strings"

	"sluice/gateway/observe"
	"sluice/gateway/upstream"
	"sluice/store"
)

// Discovery is how the look-ups of one backend go.
type Discovery = upstream.Discovery

// Discovery tells how the look-ups of a backend go, which is named by its key; false when
// it has none.
func (g *Gateway) Discovery(backend string) (Discovery, bool) { return g.pool.Discovery(backend) }

// withDiscovery adds what is wrong with the names of backends. The given problems stay as
// they are.
func (g *Gateway) withDiscovery(problems Problems) Problems {
	own := maps.Clone(problems)
	g.pool.Discoveries(func(backend string, d upstream.Discovery) {
		namespace, name, _ := strings.Cut(backend, "/")
		id := store.ID{Kind: store.BackendKind, Namespace: namespace, Name: name}
		if d.Problem == "" || own[id] != nil {
			return
		}
		if own == nil {
			own = make(Problems)
		}
		own[id] = errors.New(d.Problem)
	})
	return own
}

// registerDiscovery shows how look-ups go.
func (g *Gateway) registerDiscovery() {
	m := g.metrics
	m.CounterVecFunc("sluice_dns_lookups_total", "Look-ups of the names of backends, by how they went.", []string{"result"}, func(emit observe.Emit) {
		good, bad := g.pool.LookUps()
		emit(float64(good), "answered")
		emit(float64(bad), "failed")
	})
	backend := []string{"backend"}
	m.GaugeVecFunc("sluice_dns_addresses", "Endpoints that the last good answer has brought.", backend, func(emit observe.Emit) {
		g.pool.Discoveries(func(backend string, d upstream.Discovery) { emit(float64(d.Addresses), backend) })
	})
	m.GaugeVecFunc("sluice_dns_problem", "1 when the last look-up was not as it should be.", backend, func(emit observe.Emit) {
		g.pool.Discoveries(func(backend string, d upstream.Discovery) {
			problem := 0.0
			if d.Problem != "" {
				problem = 1
			}
			emit(problem, backend)
		})
	})
}
