package balance

import (
	"slices"
	"sync"
	"testing"
)

func TestLeastRequestKeepsOpenStreamsEven(t *testing.T) {
	for _, tc := range []struct {
		name    string
		weights []uint32
		streams int
		want    []int
	}{
		{"two equal", []uint32{1, 1}, 300, []int{150, 150}},
		{"three equal", []uint32{1, 1, 1}, 300, []int{100, 100, 100}},
		{"three equal, heavy", []uint32{70, 70, 70}, 300, []int{100, 100, 100}},
		{"two to one to one", []uint32{2, 1, 1}, 400, []int{200, 100, 100}},
		{"canary endpoint", []uint32{90, 10}, 1000, []int{900, 100}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			set := nodes(tc.weights...)
			streams(NewLeastRequest(set, calm), 8, tc.streams)
			for i, got := range active(set) {
				if !within(got, tc.want[i], 1) {
					t.Fatalf("%v streams are open, want %v, each give or take one", active(set), tc.want)
				}
			}
		})
	}
}

// Equal nodes never differ by more than one stream while streams only come,
// however the picks interleave.
func TestLeastRequestNeverStacksConcurrentPicks(t *testing.T) {
	for range 200 {
		set := nodes(1, 1, 1)
		streams(NewLeastRequest(set, calm), 8, 24)
		if got := active(set); !slices.Equal(got, []int{8, 8, 8}) {
			t.Fatalf("%v streams are open, want 8 each", got)
		}
	}
}

func TestLeastRequestFillsTheNodeThatIsBehind(t *testing.T) {
	set := nodes(1, 1, 1)
	for range 100 {
		set[0].Acquire()
		set[2].Acquire()
	}
	p := seededLeastRequest(set) // a new table; the streams of the old one are still there
	for range 100 {
		if i := p.Pick(Request{}); i != 1 {
			t.Fatalf("picked node %d with %v streams open", i, active(set))
		}
	}
}

// Two equals out of three are both taken as often; the third is busy.
func TestLeastRequestBreaksTiesFairly(t *testing.T) {
	for _, busy := range []int{0, 1, 2} {
		set := nodes(1, 1, 1)
		for range 5 {
			set[busy].Acquire()
		}
		got := sequential(t, seededLeastRequest(set), set, nil, 10000)
		for i, n := range got {
			want := 5000
			if i == busy {
				want = 0
			}
			if !within(n, want, 250) {
				t.Errorf("node %d busy: picked %v", busy, got)
			}
		}
	}
}

func TestLeastRequestOfManyPrefersTheFreer(t *testing.T) {
	set := nodes(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	for range 1000 {
		set[4].Acquire()
	}
	got := sequential(t, seededLeastRequest(set), set, nil, 9000)
	if got[4] != 0 {
		t.Errorf("the busy node was picked %d times; another was always at hand", got[4])
	}
	for i, n := range got {
		if i != 4 && !within(n, 1000, 200) {
			t.Errorf("picked %v, want about 1000 of each node but the busy one", got)
			break
		}
	}
}

// P2C bounds what the busiest has above the mean by a few streams; throwing at
// random would leave it some sqrt(2*100*ln(20)) = 24 above.
func TestLeastRequestOfManySpreadsOpenStreams(t *testing.T) {
	for _, tc := range []struct {
		name    string
		weights []uint32
		per     int // streams per weight
		within  int // of each node's share
	}{
		{"twenty equal", slices.Repeat([]uint32{1}, 20), 100, 5},
		{"four unequal", []uint32{4, 3, 2, 1}, 100, 5},
		{"one heavy", []uint32{10, 1, 1, 1, 1}, 100, 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			set := nodes(tc.weights...)
			p := seededLeastRequest(set)
			total := 0
			for _, w := range tc.weights {
				total += int(w) * tc.per
			}
			for range total {
				p.Pick(Request{})
			}
			for i, w := range tc.weights {
				if got := set[i].Active(); !within(got, int(w)*tc.per, tc.within) {
					t.Errorf("%v streams for weights %v: node %d is more than %d off", active(set), tc.weights, i, tc.within)
				}
			}
		})
	}
}

// The counts are right whatever comes and goes at the same time.
func TestLeastRequestLosesNoStream(t *testing.T) {
	for _, n := range []int{2, 3, 8} {
		set := nodes(slices.Repeat([]uint32{1}, n)...)
		p := NewLeastRequest(set, calm)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for k := range 2000 {
					i := p.Pick(Request{})
					set[i].SetUsable(k%7 != 0)
					set[i].Release()
				}
			})
		}
		wg.Wait()
		if got := active(set); slices.Max(got) != 0 || slices.Min(got) != 0 {
			t.Errorf("%v streams are left of none", got)
		}
	}
}

func TestLotteryDrawsEachAsItWeighs(t *testing.T) {
	for _, weights := range [][]uint64{
		{1},
		{1, 1, 1, 1},
		{5, 1, 1, 0},
		{0, 0, 7, 0},
		{1, 2, 3, 4, 5, 6, 7},
		{4294967295, 1, 4294967295, 0, 1000000},
	} {
		var total uint64
		for _, w := range weights {
			total += w
		}
		chance := make([]float64, len(weights))
		lots := newLottery(weights, total)
		for i, u := range lots {
			own := float64(u.own) / (1 << 32)
			chance[i] += own / float64(len(lots))
			chance[u.other] += (1 - own) / float64(len(lots))
		}
		for i, w := range weights {
			want := float64(w) / float64(total)
			if diff := chance[i] - want; diff > 1e-9 || diff < -1e-9 || w == 0 && chance[i] != 0 {
				t.Errorf("weights %v: index %d is drawn with %v, want %v", weights, i, chance[i], want)
			}
		}
	}
}

func TestLotteryDrawsFromEnds(t *testing.T) {
	lots := newLottery([]uint64{1, 0, 3}, 4)
	if got := lots.draw(0); got != 0 {
		t.Errorf("lowest draw is %d, want 0", got)
	}
	if got := lots.draw(1<<64 - 1); got != 2 {
		t.Errorf("highest draw is %d, want 2", got)
	}
}
