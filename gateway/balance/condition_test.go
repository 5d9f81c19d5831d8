package balance

import (
	"math"
	"sync"
	"testing"
	"time"
)

func TestNodeIsUsableWhenNothingSpeaksAgainstIt(t *testing.T) {
	var n Node
	for _, step := range []struct {
		c       Condition
		on      bool
		changed bool
		want    Condition
	}{
		{Down, true, true, Down},
		{Down, true, false, Down},
		{Ejected, true, true, Down | Ejected},
		{Down, false, true, Ejected},
		{Unhealthy | Stalled, true, true, Unhealthy | Ejected | Stalled},
		{Unhealthy | Ejected, false, true, Stalled},
		{Ejected, false, false, Stalled},
		{Stalled, false, true, 0},
	} {
		if got := n.SetCondition(step.c, step.on); got != step.changed || n.Condition() != step.want || n.Usable() != (step.want == 0) {
			t.Fatalf("%b set to %v: changed %v, conditions %b, usable %v; want %v, %b", step.c, step.on, got, n.Condition(), n.Usable(), step.changed, step.want)
		}
		// What slow start holds back is none of it.
		n.SetScale(0.5)
		n.SetScale(1)
	}
	n.SetUsable(false)
	if n.Condition() != Down {
		t.Errorf("conditions %b, want down", n.Condition())
	}
}

// Several owners, one word: nobody undoes what another has said.
func TestNodeHearsAllWhoJudge(t *testing.T) {
	var n Node
	var wg sync.WaitGroup
	for _, c := range []Condition{Down, Unhealthy, Ejected, Stalled, Unknown} {
		wg.Go(func() {
			for k := range 1001 {
				if changed := n.SetCondition(c, k%2 == 0); !changed {
					t.Errorf("condition %b: somebody else has changed it", c)
				}
			}
		})
	}
	wg.Go(func() {
		for k := range 1000 {
			n.SetScale(float64(k) / 1000)
		}
		n.SetScale(0.25)
	})
	wg.Wait()
	if n.Condition() != anyCondition || !within(int(n.scale()), 64, 1) {
		t.Errorf("conditions %b, scale %d of 256", n.Condition(), n.scale())
	}
}

func TestNodeScaleIsWithinBounds(t *testing.T) {
	var n Node
	for _, tc := range []struct {
		scale float64
		want  uint64
	}{{1, 256}, {2, 256}, {0.5, 128}, {0.1, 26}, {0, 1}, {-1, 1}, {math.Inf(1), 256}} {
		n.SetScale(tc.scale)
		if got := n.scale(); !within(int(got), int(tc.want), 1) || (tc.scale >= 1) != (got == fullScale) {
			t.Errorf("scale %v is %d of 256, want %d", tc.scale, got, tc.want)
		}
	}
}

func TestRampRisesToTheWhole(t *testing.T) {
	for _, tc := range []struct {
		name            string
		elapsed, window time.Duration
		exponent, least float64
		want            float64
	}{
		{"no window", 0, 0, 1, 0.1, 1},
		{"just now", 0, time.Minute, 1, 0.1, 0.1},
		{"the clock went back", -time.Second, time.Minute, 1, 0.1, 0.1},
		{"below the least", 3 * time.Second, time.Minute, 1, 0.1, 0.1},
		{"half", 30 * time.Second, time.Minute, 1, 0.1, 0.5},
		{"half, squared", 30 * time.Second, time.Minute, 2, 0.1, 0.25},
		{"half, root", 30 * time.Second, time.Minute, 0.5, 0.1, math.Sqrt(0.5)},
		{"nearly", 59 * time.Second, time.Minute, 1, 0, 59. / 60},
		{"done", time.Minute, time.Minute, 1, 0.1, 1},
		{"long ago", time.Hour, time.Minute, 1, 0.1, 1},
	} {
		if got := Ramp(tc.elapsed, tc.window, tc.exponent, tc.least); math.Abs(got-tc.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// A node that has a part of its share is picked by that part.
func TestSlowStartGivesThePart(t *testing.T) {
	for _, policy := range policies {
		if policy.keyed {
			continue // keys know no slow start
		}
		for _, n := range []int{2, 8} {
			set := nodes(make([]uint32, n)...)
			for _, node := range set {
				node.SetWeight(10)
			}
			p := policy.make(set)
			for _, scale := range []float64{0.1, 0.5, 1} {
				set[0].SetScale(scale)
				got := sequential(t, p, set, nil, 5000)
				want := int(5000 * scale / (scale + float64(n-1)))
				if !within(got[0], want, 120+want/8) {
					t.Errorf("%s of %d: at %v of its share a node was picked %d times of 5000, want about %d", policy.name, n, scale, got[0], want)
				}
			}
		}
	}
}

// Open streams, too, gather by the part; and all nodes in slow start are as none.
func TestSlowStartOfLeastRequestHoldsStreamsBack(t *testing.T) {
	for _, n := range []int{2, 5} {
		set := nodes(make([]uint32, n)...)
		for _, node := range set {
			node.SetWeight(1)
		}
		p := seededLeastRequest(set)
		set[0].SetScale(0.25)
		for range 100 * n {
			p.Pick(Request{})
		}
		others := float64(100*n-set[0].Active()) / float64(n-1)
		if got := float64(set[0].Active()) / others; got < 0.15 || got > 0.3 {
			t.Errorf("%v streams are open, want a quarter of the others' on the first", active(set))
		}
	}
	set := nodes(1, 1, 1, 1, 1)
	for _, node := range set {
		node.SetScale(0)
	}
	for i, got := range sequential(t, seededLeastRequest(set), set, nil, 5000) {
		if !within(got, 1000, 150) {
			t.Errorf("all begin, and node %d was picked %d times of 5000", i, got)
		}
	}
}
