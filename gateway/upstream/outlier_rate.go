package upstream

import (
	"fmt"
	"math"
	"time"

	"sluice/gateway/balance"
)

// rated is what an endpoint had when success rates were last compared.
type rated struct{ succeeded, failed uint64 }

// rate is how often an endpoint has succeeded since then.
type rate struct {
	e       *Endpoint
	success float64
	failed  uint64
}

const (
	// leastGap is how far below the mean an endpoint is at least that is ejected, in
	// shares of one, and leastFailures how many of its RPCs have failed: where all are
	// nearly alike, deviations are of a few RPCs.
	leastGap      = 0.05
	leastFailures = 2
)

// compare ejects endpoints that succeed much less often than the others, once an
// interval. The caller holds mu.
func (g *group) compare(b *Backend, now time.Time) {
	if g.outliers == nil || g.outliers.SuccessRate == nil {
		return
	}
	rule := g.outliers.SuccessRate
	if now.Sub(g.compared) < time.Duration(rule.Interval) {
		return
	}
	first := g.compared.IsZero()
	g.compared = now
	var rates []rate
	for _, e := range b.Endpoints {
		e.mu.Lock()
		succeeded, failed, _ := e.tally.totals()
		e.mu.Unlock()
		since := rated{more(succeeded, e.rated.succeeded), more(failed, e.rated.failed)}
		e.rated = rated{succeeded, failed}
		n := since.succeeded + since.failed
		if e.Weight() > 0 && e.Condition()&balance.Ejected == 0 && n >= uint64(max(rule.MinRequests, 1)) {
			rates = append(rates, rate{e, float64(since.succeeded) / float64(n), since.failed})
		}
	}
	if first || len(rates) < max(rule.MinEndpoints, 2) {
		return // what was before the first comparison is of no interval
	}
	least := leastRate(rates, rule.Deviations)
	for _, r := range rates {
		if r.success < least && r.failed >= leastFailures {
			g.eject(r.e, fmt.Sprintf("%.1f %% of its RPCs succeeded, less than the %.1f %% that the others allow for", 100*r.success, 100*least))
		}
	}
}

// leastRate is the mean less so many standard deviations, or less leastGap.
func leastRate(rates []rate, deviations float64) float64 {
	var sum, squares float64
	for _, r := range rates {
		sum += r.success
	}
	mean := sum / float64(len(rates))
	for _, r := range rates {
		squares += (r.success - mean) * (r.success - mean)
	}
	return mean - max(deviations*math.Sqrt(squares/float64(len(rates))), leastGap)
}
