package balance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// simulation has RPCs come to nodes on a clock of its own: as a Poisson process, for as
// long as each node takes. It is the same in each run.
type simulation struct {
	perSecond float64
	lasts     time.Duration
	warmUp    time.Duration // of that, what does not count
	// took is how long node i takes, and whether it then fails.
	took func(i int, random *rand.Rand) (took time.Duration, fails bool)
	// at changes something once, at a time; nil changes nothing.
	at     time.Duration
	change func()
	// doubtful says that what fails may do so for the request's sake.
	doubtful bool
	// observed is the time to the first byte of what took so long, if it is not the same.
	observed func(took time.Duration) time.Duration
	// end is called when no more RPCs come, while some are under way.
	end func()
}

// result is what came of it.
type result struct {
	picked []int
	took   []time.Duration // in order
}

func (r *result) p99() time.Duration { return r.took[len(r.took)*99/100] }

func (r *result) share(i int) float64 {
	sum := 0
	for _, n := range r.picked {
		sum += n
	}
	return float64(r.picked[i]) / float64(sum)
}

// ending is an RPC that is under way.
type ending struct {
	at, took time.Duration
	node     int
	fails    bool
	counts   bool
}

// endings is a heap: the first is the next to end. It is one of its own because
// container/heap takes most of a simulation.
type endings []ending

func (q *endings) add(e ending) {
	*q = append(*q, e)
	for at := len(*q) - 1; at > 0 && (*q)[at].at < (*q)[(at-1)/2].at; at = (at - 1) / 2 {
		(*q)[at], (*q)[(at-1)/2] = (*q)[(at-1)/2], (*q)[at]
	}
}

func (q *endings) next() ending {
	list := *q
	first, last := list[0], len(list)-1
	list[0] = list[last]
	list = list[:last]
	for at := 0; ; {
		least := at
		for child := 2*at + 1; child <= 2*at+2 && child < last; child++ {
			if list[child].at < list[least].at {
				least = child
			}
		}
		if least == at {
			break
		}
		list[at], list[least] = list[least], list[at]
		at = least
	}
	*q = list
	return first
}

// virtualClock is what pickers of PeakEWMA read in a simulation.
type virtualClock struct{ now time.Duration }

func (c *virtualClock) time() time.Time { return epoch.Add(c.now) }

// run simulates.
func (s *simulation) run(set []*Node, p Picker, clock *virtualClock) result {
	random := rand.New(rand.NewPCG(3, 4))
	r := result{picked: make([]int, len(set))}
	var open endings
	end := func() {
		e := open.next()
		clock.now = e.at
		set[e.node].Release()
		switch {
		case e.fails && s.doubtful:
			set[e.node].ObserveDoubt(clock.time(), e.took)
			return
		case e.fails:
			set[e.node].ObserveFailure(clock.time())
			return
		}
		first := e.took
		if s.observed != nil {
			first = s.observed(e.took)
		}
		set[e.node].Observe(clock.time(), first)
		if e.counts {
			r.took = append(r.took, e.took)
		}
	}
	for next := time.Duration(0); next < s.lasts; {
		for len(open) > 0 && open[0].at <= next {
			end()
		}
		clock.now = next
		if s.change != nil && next >= s.at {
			s.change()
			s.change = nil
		}
		i := p.Pick(Request{})
		took, fails := s.took(i, random)
		counts := next >= s.warmUp
		if counts {
			r.picked[i]++
		}
		open.add(ending{next + took, took, i, fails, counts})
		next += time.Duration(random.ExpFloat64() / s.perSecond * float64(time.Second))
	}
	if s.end != nil {
		s.end()
	}
	for len(open) > 0 {
		end()
	}
	slices.Sort(r.took)
	return r
}

// simulated is a picker as simulations use it.
func simulated(set []*Node, choosers func(field) chooser, clock *virtualClock) Picker {
	return seededPicker(set, calm, func(f field) chooser {
		c := choosers(f)
		if p, ok := c.(*peakEWMA); ok {
			p.ticks = func() uint32 { return ticks(clock.time()) }
		}
		return c
	})
}

// services are how long the RPCs of the simulations take.
var services = []struct {
	name string
	took func(random *rand.Rand) time.Duration
}{
	{"20 to 22 ms", func(random *rand.Rand) time.Duration {
		return 20*time.Millisecond + time.Duration(random.Int64N(int64(2*time.Millisecond)))
	}},
	{"mostly 23 ms, some 43", func(random *rand.Rand) time.Duration {
		d := 20*time.Millisecond + time.Duration(random.ExpFloat64()*float64(3*time.Millisecond))
		if random.IntN(200) == 0 {
			d += 20 * time.Millisecond
		}
		return d
	}},
	{"20 ms, exponential", func(random *rand.Rand) time.Duration {
		return time.Duration(random.ExpFloat64() * float64(20*time.Millisecond))
	}},
}

// compared are the policies that tell busy or slow nodes apart, and the one that does not.
var compared = []policy{
	{name: "RoundRobin", choosers: roundOf},
	{name: "LeastRequest", choosers: leastOf},
	peakEWMAs,
}

var peakEWMAs = policy{name: "PeakEWMA", choosers: fastestOf}

// One endpoint in five takes 100 ms more. Least request notices it by the streams that
// gather there, and gives it the same number of streams as the others: so one RPC in 20
// to 30. Only who looks at the time keeps the tail.
func TestPeakEWMAKeepsTheTailWhenOneIsSlow(t *testing.T) {
	for _, service := range services {
		for _, rate := range []float64{50, 500, 5000} {
			t.Run(fmt.Sprintf("%s, %v per second", service.name, rate), func(t *testing.T) {
				lasts := time.Duration(min(60, 20_000/rate) * float64(time.Second))
				run := func(p policy, slower time.Duration) result {
					sim := simulation{perSecond: rate, lasts: lasts, warmUp: lasts / 4}
					sim.took = func(i int, random *rand.Rand) (time.Duration, bool) {
						if i == 2 {
							return service.took(random) + slower, false
						}
						return service.took(random), false
					}
					var clock virtualClock
					set := nodes(1, 1, 1, 1, 1)
					return sim.run(set, simulated(set, p.choosers, &clock), &clock)
				}
				well := run(peakEWMAs, 0)
				fair := 0.05
				if rate == 50 {
					fair = 0.1 // few RPCs, which differ much
				}
				for i := range well.picked {
					if share := well.share(i); share < 0.2-fair || share > 0.2+fair {
						t.Errorf("all are well, and node %d has %.1f %% of %v", i, 100*share, well.picked)
					}
				}
				for _, p := range compared {
					ill := run(p, 100*time.Millisecond)
					ratio := float64(ill.p99()) / float64(well.p99())
					t.Logf("%-12s the slow one gets %5.2f %%; p99 %v, all well %v: %.2f", p.name, 100*ill.share(2), ill.p99(), well.p99(), ratio)
					switch {
					case p.name == "PeakEWMA" && (ratio > 1.3 || ill.share(2) > 0.006):
						t.Error("PeakEWMA: want at most 0.6 %, and a p99 of at most 1.3 of the healthy one")
					case p.name == "LeastRequest" && ill.share(2) > 0.13:
						t.Error("LeastRequest: want at most 13 %")
					case p.name == "RoundRobin" && ratio < 1.3:
						t.Error("RoundRobin: the simulation shows nothing, want more than 1.3")
					}
				}
			})
		}
	}
}

// An endpoint that fails at once looks free at any time: whoever counts streams alone
// sends it most of all. Whether it is ill or exhausted is the same.
func TestPeakEWMAIsNotAttractedByFailures(t *testing.T) {
	for _, doubtful := range []bool{false, true} {
		for _, policy := range compared {
			sim := simulation{perSecond: 1000, lasts: 20 * time.Second, doubtful: doubtful}
			sim.took = func(i int, random *rand.Rand) (time.Duration, bool) {
				if i == 2 {
					return time.Millisecond, true
				}
				return services[1].took(random), false
			}
			var clock virtualClock
			set := nodes(1, 1, 1, 1, 1)
			r := sim.run(set, simulated(set, policy.choosers, &clock), &clock)
			t.Logf("doubtful %v: %s: %.2f %% of the RPCs go to the one that fails", doubtful, policy.name, 100*r.share(2))
			if most := map[bool]float64{false: 0.002, true: 0.01}[doubtful]; policy.name == "PeakEWMA" && r.share(2) > most {
				t.Errorf("%.2f %% of the RPCs failed, want at most %.2f %%", 100*r.share(2), 100*most)
			}
		}
	}
}

// What was slow is tried again, and what is well again gets its share.
func TestPeakEWMAForgives(t *testing.T) {
	for _, slow := range []time.Duration{100 * time.Millisecond, time.Second} {
		sim := simulation{perSecond: 500, lasts: 2 * time.Minute, warmUp: 100 * time.Second, at: 20 * time.Second}
		late := slow
		sim.change = func() { late = 0 }
		sim.took = func(i int, random *rand.Rand) (time.Duration, bool) {
			d := services[0].took(random)
			if i == 2 {
				d += late
			}
			return d, false
		}
		var clock virtualClock
		set := nodes(1, 1, 1, 1, 1)
		r := sim.run(set, simulated(set, fastestOf, &clock), &clock)
		if share := r.share(2); share < 0.15 || share > 0.25 {
			t.Errorf("80 s after it was %v slower a node gets %.1f %%, want about 20 %%", slow, 100*share)
		}
	}
}

// Five endpoints are joined by a sixth: in the 2 s after that it has its share, give or
// take a tenth.
func TestPickersGiveANewcomerItsShare(t *testing.T) {
	for _, policy := range compared {
		var clock virtualClock
		set := nodes(1, 1, 1, 1, 1, 0)
		before := simulated(set, policy.choosers, &clock)
		after := &switching{Picker: before}
		sim := simulation{perSecond: 2000, lasts: 12 * time.Second, warmUp: 10 * time.Second, at: 10 * time.Second}
		sim.change = func() {
			set[5].SetWeight(1)
			after.Picker = simulated(set, policy.choosers, &clock)
		}
		sim.took = func(_ int, random *rand.Rand) (time.Duration, bool) { return services[0].took(random), false }
		r := sim.run(set, after, &clock)
		if share := 6 * r.share(5); share < 0.9 || share > 1.1 {
			t.Errorf("%s: the newcomer has %.2f of a fair share: %v", policy.name, share, r.picked)
		}
	}
}

// switching is the picker of a gateway whose table changes.
type switching struct{ Picker }

// Streams that stay open count as load: a newcomer's rise to what the others have, and
// never above.
func TestPickersFillANewcomerWithoutOvershoot(t *testing.T) {
	for _, policy := range compared[1:] {
		for _, n := range []int{2, 5, 20} {
			t.Run(fmt.Sprintf("%s of %d", policy.name, n), func(t *testing.T) {
				var clock virtualClock
				set := nodes(append(slices.Repeat([]uint32{1}, n), 0)...)
				p := &switching{simulated(set, policy.choosers, &clock)}
				// 100 streams for each node, which live for 10 s.
				sim := simulation{perSecond: float64(10 * n), lasts: 60 * time.Second, at: 40 * time.Second}
				sim.change = func() {
					set[n].SetWeight(1)
					p.Picker = simulated(set, policy.choosers, &clock)
				}
				highest := 0.0
				sim.took = func(i int, random *rand.Rand) (time.Duration, bool) {
					sum := 0
					for _, node := range set {
						sum += node.Active()
					}
					mean := float64(sum) / float64(n+1)
					if i == n {
						highest = max(highest, (float64(set[n].Active())-1)/mean)
					}
					return time.Duration(random.ExpFloat64() * float64(10*time.Second)), false
				}
				sim.observed = func(took time.Duration) time.Duration { return 5 * time.Millisecond }
				sim.end = func() {
					sum := 0
					for _, node := range set {
						sum += node.Active()
					}
					mean := float64(sum) / float64(n+1)
					if got := float64(set[n].Active()); got < 0.9*mean || got > 1.1*mean {
						t.Errorf("20 s later %v streams are open, want the last within a tenth of the mean", active(set))
					}
				}
				sim.run(set, p, &clock)
				t.Logf("at most %.3f of the mean", highest)
				if highest > 1.1 {
					t.Errorf("the newcomer had %.2f of the mean", highest)
				}
			})
		}
	}
}
