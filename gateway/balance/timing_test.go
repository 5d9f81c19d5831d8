package balance

import (
	"math"
	"sync"
	"testing"
	"time"
)

// estimate is what a node's timing says at a time after the epoch, in milliseconds.
func estimate(n *Node, at time.Duration) float64 {
	e, known := n.timing.at(ticks(epoch.Add(at)))
	if !known {
		return -1
	}
	return (e - float64(leastTime)) / float64(time.Millisecond)
}

func TestTimingFollowsWhatItSees(t *testing.T) {
	const ms = time.Millisecond
	type seen struct {
		at   time.Duration
		took time.Duration // 0 = it failed
	}
	for _, tc := range []struct {
		name string
		seen []seen
		at   time.Duration
		want float64 // ms
		by   float64
	}{
		{"nothing", nil, 0, -1, 0},
		{"the first counts whole", []seen{{0, 20 * ms}}, 0, 20, 0.01},
		{"and falls while nothing comes", []seen{{0, 20 * ms}}, 10 * time.Second, 20 / math.E, 0.01},
		{"to nothing", []seen{{0, 20 * ms}}, 100 * 24 * time.Hour, 0, 0.01},
		{"faster: by a tenth in a second", []seen{{0, 20 * ms}, {time.Second, 10 * ms}}, time.Second, 19.05, 0.02},
		{"slower: by two thirds in a second", []seen{{0, 20 * ms}, {time.Second, 120 * ms}}, time.Second, 83.2, 0.2},
		{"at once: not at all", []seen{{0, 20 * ms}, {0, 120 * ms}}, 0, 20, 0.01},
		{"a failure moves it by a tenth at least", []seen{{0, 20 * ms}, {0, 0}}, 0, 518, 0.1},
		{"two failures by more", []seen{{0, 20 * ms}, {0, 0}, {0, 0}}, 0, 966, 0.5},
		{"a failure at first", []seen{{0, 0}}, 0, 500, 0.1},
		{"a failure after long", []seen{{0, 20 * ms}, {time.Minute, 0}}, time.Minute, 5000, 1},
		{"a clock that was read earlier", []seen{{time.Second, 20 * ms}, {900 * ms, 30 * ms}}, time.Second, 20, 0.01},
		{"a failure by a clock that was read earlier", []seen{{time.Second, 20 * ms}, {900 * ms, 0}}, time.Second, 518, 0.1},
		{"a response in no time", []seen{{0, -1}}, 0, 0, 0.01},
		{"a response of hours", []seen{{0, 10 * time.Hour}}, 0, 3.6e7, 1e3},
	} {
		var n Node
		for _, s := range tc.seen {
			if s.took == 0 {
				n.ObserveFailure(epoch.Add(s.at))
				continue
			}
			n.Observe(epoch.Add(s.at), s.took)
		}
		if got := estimate(&n, tc.at); math.Abs(got-tc.want) > tc.by {
			t.Errorf("%s: %.3f ms, want %.3f", tc.name, got, tc.want)
		}
	}
}

// What may be the request's fault is no good news, and bad news only for a while.
func TestTimingDoubts(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before time.Duration
		took   time.Duration
		want   float64 // ms, a second later
	}{
		{"fast", 20 * time.Millisecond, time.Millisecond, 20 + (1000-20)*(1-1/math.E)},
		{"slow", 20 * time.Millisecond, 3 * time.Second, 20 + (3000-20)*(1-1/math.E)},
		{"at first", 0, time.Millisecond, 1000},
	} {
		var n Node
		if tc.before > 0 {
			n.Observe(epoch, tc.before)
		}
		n.ObserveDoubt(epoch.Add(time.Second), tc.took)
		if got := estimate(&n, time.Second); math.Abs(got-tc.want) > tc.want/100 {
			t.Errorf("%s: %.1f ms, want %.1f", tc.name, got, tc.want)
		}
	}
}

// The clock goes round; what is forgotten by then stays so.
func TestTimingStandsAClockThatGoesRound(t *testing.T) {
	for _, tc := range []struct {
		now, then uint32
		want      time.Duration
	}{
		{5, 5, 0},
		{6, 5, tick},
		{5, 6, 0}, // read by another, a little later
		{3, math.MaxUint32 - 1, 5 * tick},
		{math.MaxUint32 - 1, 3, 0},
		{1 << 31, 0, 1 << 31 * tick},
		{0, 1 << 31, 1 << 31 * tick},
	} {
		if got := since(tc.now, tc.then); got != tc.want {
			t.Errorf("from %d to %d: %v, want %v", tc.then, tc.now, got, tc.want)
		}
	}
}

// However observations of one value interleave, that is the value.
func TestTimingIsOneForAllGoroutines(t *testing.T) {
	var n Node
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for k := range 2000 {
				n.Observe(epoch.Add(time.Duration(k+g)*time.Millisecond), 7*time.Millisecond)
			}
		})
	}
	wg.Wait()
	if got := estimate(&n, 2*time.Second); math.Abs(got-7) > 0.05 {
		t.Errorf("%.3f ms, want 7", got)
	}
}

// A node of which nothing is known is neither shunned nor overrun.
func TestPeakEWMATakesNewcomersForTheMean(t *testing.T) {
	set := nodes(1, 1, 1, 1, 1)
	for i, took := range []time.Duration{10, 20, 30, 40} {
		set[i].Observe(epoch, took*time.Millisecond)
	}
	p := newPeakEWMA(newField(set))
	want := float64(25*time.Millisecond + leastTime)
	if got := p.time(4, 0); math.Abs(got-want) > 100 {
		t.Errorf("a newcomer is taken to need %.0f ns, want %.0f", got, want)
	}
	// It holds for a while, so that a pick does not look at all nodes.
	set[3].Observe(epoch.Add(time.Second), time.Second)
	if got := p.time(4, 1); math.Abs(got-want) > 100 {
		t.Errorf("a moment later %.0f ns, want %.0f", got, want)
	}
	if got := p.time(4, ticks(epoch.Add(time.Second))); got < 2*want {
		t.Errorf("a second later %.0f ns, want what the others take then", got)
	}
	if got := newPeakEWMA(newField(nodes(1, 1))).time(0, 0); got <= 0 {
		t.Errorf("nothing is known of any node: %v ns", got)
	}
}

// Among nodes that carry nothing the slower ones get nothing; those that are alike get
// what they weigh.
func TestPeakEWMASparesTheSlowWhenAllAreIdle(t *testing.T) {
	for _, weights := range [][]uint32{{3, 2, 1}, {3, 2, 1, 4}} {
		set := nodes(weights...)
		for i, took := range []time.Duration{20, 22, 90, 21}[:len(set)] {
			set[i].Observe(epoch, took*time.Millisecond)
		}
		p := seededPicker(set, calm, func(f field) chooser {
			p := newPeakEWMA(f)
			p.ticks = func() uint32 { return 0 }
			return p
		})
		got := sequential(t, p, set, nil, 10000)
		if got[2] != 0 || !within(got[0]*2, got[1]*3, 800) {
			t.Errorf("weights %v: picked %v, want none of the slow one, and three to two of the first", weights, got)
		}
	}
}
