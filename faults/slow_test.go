package faults

import (
	"testing"
	"time"
)

// TestSlowEndpointCostsLittle: one of five takes 120 ms where the others take 20. Who
// counts what is open alone sends it a thirtieth, which a p99 sees; who looks at the
// time sends it less than a hundredth.
func TestSlowEndpointCostsLittle(t *testing.T) {
	longOnly(t)
	rate := fullRate(t)
	backends := startBackends(t, 5, "b")
	for _, b := range backends {
		b.behave(behaviour{Delay: 20 * time.Millisecond})
	}
	g := startGateway(t)
	g.apply(manifest(endpoints(backends...), "", ""))
	best := 0.0
	for _, policy := range []string{"RoundRobin", "LeastRequest", "PeakEWMA"} {
		t.Run(policy, func(t *testing.T) {
			s := begin(t, "one of five that take 20 ms is slowed by 100 ms, %s", policy)
			g.apply(backendManifest(endpoints(backends...), "loadBalancing: {policy: "+policy+"}"))
			r := load{rate: rate}.begin(t, g)
			wait(6 * time.Second)
			backends[0].behave(behaviour{Delay: 120 * time.Millisecond})
			slowed := r.now()
			wait(7 * time.Second)
			backends[0].behave(behaviour{Delay: 20 * time.Millisecond})
			end := r.now()
			all := r.stop()
			s.noneFailed(all)
			well, ill := all.steady(0.99, slowed-5*time.Second, slowed), all.steady(0.99, slowed+2*time.Second, end)
			ratio := ill.Seconds() / well.Seconds()
			if well > 60*time.Millisecond { // the slow endpoint would drown in what the machine does
				s.invalid = append(s.invalid, "p99 is "+ms(well)+" of backends that take 20 ms: the machine is busy with something else")
			}
			s.note("p99 of the median second %s well, %s with the slow one, which got %s", ms(well), ms(ill),
				percent(all.between(slowed+2*time.Second, end).share(backends[0].name())))
			if policy == "PeakEWMA" {
				s.want(ratio <= 1.3, "1.3 × at most", "%.2f ×", ratio)
			} else {
				s.note("%.2f ×", ratio)
			}
			if policy != "RoundRobin" && (best == 0 || ratio < best) {
				best = ratio
			}
		})
	}
	if best > 1.3 {
		t.Errorf("p99 is %.2f × the healthy one under the better of LeastRequest and PeakEWMA, want 1.3 at most", best)
	}
}

func TestVerySlowEndpointLosesItsLoad(t *testing.T) {
	longOnly(t)
	s := begin(t, "one of three that take 10 ms is slowed by 500 ms, at defaults")
	backends := startBackends(t, 3, "b")
	for _, b := range backends {
		b.behave(behaviour{Delay: 10 * time.Millisecond})
	}
	g := startGateway(t)
	g.apply(manifest(endpoints(backends...), "", ""))
	r := load{rate: 1000}.begin(t, g)
	wait(4 * time.Second)
	backends[0].behave(behaviour{Delay: 510 * time.Millisecond})
	slowed := r.now()
	wait(8 * time.Second)
	end := r.now()
	all := r.stop()
	s.noneFailed(all)
	before, after := all.between(time.Second, slowed), all.between(slowed, slowed+5*time.Second)
	s.want(after.share("b1") <= 0.1, "10 % of the load at most in the 5 s after", "it got %s in the 5 s after", percent(after.share("b1")))
	s.note("p99 %s well, %s with it", ms(before.quantile(0.99)), ms(all.between(slowed+2*time.Second, end).quantile(0.99)))
}
