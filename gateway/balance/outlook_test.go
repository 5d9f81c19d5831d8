package balance

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// Which nodes are picked, by the conditions that hold and the panic threshold.
func TestPickerBelievesConditionsUntilItPanics(t *testing.T) {
	const well = Condition(0)
	for _, tc := range []struct {
		name  string
		nodes []Condition
		panic int
		avoid Mask
		want  []int
	}{
		{"one of four unhealthy", []Condition{Unhealthy, well, well, well}, 50, nil, []int{1, 2, 3}},
		{"one ejected, one unhealthy", []Condition{Ejected, Unhealthy, well, well}, 50, nil, []int{2, 3}},
		{"one of two ejected", []Condition{Ejected, well}, 50, nil, []int{1}},
		{"three of four ejected", []Condition{Ejected, Ejected, Ejected, well}, 50, nil, []int{0, 1, 2, 3}},
		{"three of four ejected, threshold below", []Condition{Ejected, Ejected, Ejected, well}, 25, nil, []int{3}},
		{"all unhealthy", []Condition{Unhealthy, Unhealthy, Unhealthy}, 1, nil, []int{0, 1, 2}},
		{"all unhealthy, which is believed", []Condition{Unhealthy, Unhealthy, Unhealthy}, 0, nil, nil},
		{"all but a tried one ejected, which is believed", []Condition{Ejected, Ejected, well}, 0, maskOf(2), nil},
		{"all but a tried one ejected", []Condition{Ejected, well, well, well}, 50, maskOf(1, 2, 3), []int{0}},
		{"panic, one down and one stalled", []Condition{Unhealthy, Unhealthy, Unhealthy | Down, Stalled}, 50, nil, []int{0, 1}},
		{"panic, all down", []Condition{Unhealthy | Down, Unhealthy | Down}, 50, nil, []int{0, 1}},
		{"down and stalled are no judgement", []Condition{Down, Stalled, Down, well}, 50, nil, []int{3}},
		{"all down or stalled", []Condition{Down, Stalled, Down}, 50, nil, []int{1}},
		{"all down", []Condition{Down, Down, Down}, 50, nil, []int{0, 1, 2}},
		{"one ejected, one stalled", []Condition{Ejected, Stalled}, 50, nil, []int{0}},
		{"one unhealthy, one down", []Condition{Unhealthy, Down}, 50, nil, []int{0}},
		{"one unhealthy, one down, checks are believed", []Condition{Unhealthy, Down}, 0, nil, []int{1}},
		{"many are not checked yet", []Condition{well, well, Ejected, Unknown, Unknown, Unknown, Unknown}, 50, nil, []int{0, 1}},
		{"none is checked yet", []Condition{Unknown, Unknown, Unknown}, 50, nil, []int{0, 1, 2}},
		{"none is checked yet, checks are believed", []Condition{Unknown, Unknown, Unknown}, 0, nil, []int{0, 1, 2}},
		{"none is well, and some are not checked yet", []Condition{Unhealthy, Unknown, Unknown}, 50, nil, []int{0, 1, 2}},
		{"the well ones are tried, and one is not checked yet", []Condition{well, well, Ejected, Unknown}, 50, maskOf(0, 1), []int{3}},
		{"panic while some are not checked yet", []Condition{well, Ejected, Ejected, Unknown, Unknown}, 50, nil, []int{0, 1, 2}},
		{"a tried one is the only one up", []Condition{Down, well}, 50, maskOf(1), []int{0}},
	} {
		for _, policy := range policies {
			t.Run(tc.name+"/"+policy.name, func(t *testing.T) {
				set := nodes(slices.Repeat([]uint32{1}, len(tc.nodes))...)
				p := policy.with(set, Settings{Panic: tc.panic})
				for i, c := range tc.nodes {
					set[i].SetCondition(c, true)
				}
				p.Refresh()
				if got := picked(p, set, tc.avoid); !slices.Equal(got, tc.want) {
					t.Errorf("picked %v, want %v", got, tc.want)
				}
				// All is well again, and so are picks.
				for i, c := range tc.nodes {
					set[i].SetCondition(c, false)
				}
				p.Refresh()
				if got := picked(p, set, nil); len(got) != len(set) {
					t.Errorf("all are well, and %v are picked", got)
				}
			})
		}
	}
}

// Nodes without weight are drained: they neither cause panic nor prevent it.
func TestPickerPanicsOfNodesWithWeight(t *testing.T) {
	set := nodes(1, 1, 0, 0, 0)
	p := seededLeastRequest(set)
	set[0].SetCondition(Ejected, true)
	set[2].SetCondition(Ejected, true)
	set[3].SetCondition(Ejected, true)
	p.Refresh()
	if got := picked(p, set, nil); !slices.Equal(got, []int{1}) {
		t.Errorf("picked %v, want node 1: of the two with weight half are well", got)
	}
	set[1].SetCondition(Unhealthy, true)
	p.Refresh()
	if got := picked(p, set, nil); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("picked %v, want both with weight", got)
	}
}

// One RPC, and not two, tries an ejected node, though it carries more than the others.
func TestPickerProbesAnEjectedNodeOnce(t *testing.T) {
	for _, policy := range policies {
		for _, n := range []int{2, 70} {
			set := nodes(slices.Repeat([]uint32{1}, n)...)
			p := policy.make(set)
			set[0].SetCondition(Ejected, true)
			for range 50 {
				set[0].Acquire()
			}
			p.Refresh()
			set[0].AllowProbe()
			set[0].AllowProbe()
			p.Refresh()
			if i := p.Pick(Request{Avoid: maskOf(0)}); i == 0 {
				t.Errorf("%s of %d: an RPC that has tried the node probes it", policy.name, n)
			}
			if i := p.Pick(Request{}); i != 0 {
				t.Errorf("%s of %d: the next RPC went to node %d, want the probe", policy.name, n, i)
			}
			if got := set[0].Active(); got != 51 {
				t.Errorf("%s of %d: %d streams on the probed node, want 51", policy.name, n, got)
			}
			p.Refresh()
			if got := picked(p, set, nil); slices.Contains(got, 0) {
				t.Errorf("%s of %d: a second RPC probed", policy.name, n)
			}
		}
	}
}

func TestPickerProbesEachNodeThatMayBe(t *testing.T) {
	set := nodes(1, 1, 1, 1, 1, 1, 0)
	p := seededLeastRequest(set)
	for _, i := range []int{0, 1, 2, 6} {
		set[i].SetCondition(Ejected, true)
		set[i].AllowProbe()
	}
	set[2].SetCondition(Down, true) // cannot be reached: its probe has to wait
	p.Refresh()
	got := []int{p.Pick(Request{}), p.Pick(Request{})}
	if slices.Sort(got); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("probed %v, want 0 and 1", got)
	}
	if i := p.Pick(Request{}); i < 3 {
		t.Errorf("picked %d after the probes", i)
	}
	set[2].SetCondition(Down, false)
	p.Refresh()
	if i := p.Pick(Request{}); i != 2 {
		t.Errorf("picked %d, want node 2, which is up again", i)
	}
}

func TestPickerProbesNoNodeThatIsBack(t *testing.T) {
	set := nodes(1, 1, 1, 1)
	set[3].SetCondition(Ejected, true)
	set[3].AllowProbe()
	set[3].SetCondition(Ejected, false)
	for range 20 {
		set[3].Acquire()
	}
	p := seededLeastRequest(set)
	if got := picked(p, set, nil); slices.Contains(got, 3) {
		t.Error("the busiest node was picked, by a token from before")
	}
	// The token of one ejection is not that of the next.
	set[3].AllowProbe()
	set[3].SetCondition(Ejected, true)
	p.Refresh()
	if got := picked(p, set, nil); slices.Contains(got, 3) {
		t.Error("a node was probed at once")
	}
}

// However many RPCs come at the same time as a token, one takes it; and none is lost.
func TestPickerProbesOnceAmongGoroutines(t *testing.T) {
	for range 50 {
		set := nodes(1, 1, 1, 1, 1)
		p := NewLeastRequest(set, calm)
		set[4].SetCondition(Ejected, true)
		p.Refresh()
		const rounds = 20
		var probes atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 200 {
					if i := p.Pick(Request{}); i == 4 {
						probes.Add(1)
					} else {
						set[i].Release()
					}
				}
			})
		}
		allowed := int32(0)
		for range rounds {
			if probes.Load() == allowed { // the last one has been taken
				allowed++
				set[4].AllowProbe()
				p.Refresh()
			}
		}
		wg.Wait()
		if probes.Load() < allowed && p.Pick(Request{}) == 4 {
			probes.Add(1)
		}
		if got := probes.Load(); got != allowed {
			t.Fatalf("%d probes, allowed were %d", got, allowed)
		}
	}
}

func TestPickerTakesTheNodeThatIsAskedFor(t *testing.T) {
	set := nodes(1, 1, 1, 0)
	p := seededLeastRequest(set)
	for range 10 {
		set[1].Acquire()
	}
	if !p.Take(1, nil) || set[1].Active() != 11 {
		t.Errorf("a busy node is not taken, or not counted: %d streams", set[1].Active())
	}
	if p.Take(1, maskOf(1)) || p.Take(3, nil) {
		t.Error("took a node that was tried, or has no weight")
	}
	set[1].SetCondition(Ejected, true)
	if p.Take(1, nil) || set[1].Active() != 11 {
		t.Error("took an ejected node")
	}
	set[0].SetCondition(Unhealthy, true)
	p.Refresh()
	if !p.Take(1, nil) {
		t.Error("took no ejected node, though most are judged to be ill")
	}
}

// Conditions come and go while RPCs are placed: no stream is lost, none is counted
// twice, and there is always a node.
func TestPickerStandsChangesFromEverySide(t *testing.T) {
	inZones := inZone(6, 2, 70)
	for _, policy := range made {
		for _, s := range []Settings{calm, inZones} {
			set := nodes(1, 2, 1, 1, 3, 1)
			p := policy.make(set, s)
			var wg sync.WaitGroup
			for g := range 3 {
				wg.Go(func() {
					for k := range 2000 {
						i := p.Pick(Request{Key: uint64(k * g), Keyed: true})
						if i < 0 {
							t.Error("no node was picked")
							return
						}
						set[i].Observe(epoch, 1000)
						set[i].Release()
					}
				})
			}
			for k := range 1000 {
				n := set[k%len(set)]
				n.SetCondition(Condition(1<<(k%4)), k%3 != 0)
				n.SetScale(float64(k%100) / 100)
				n.AllowProbe()
				p.Refresh()
			}
			wg.Wait()
			if got := active(set); slices.Max(got) != 0 || slices.Min(got) != 0 {
				t.Errorf("%s: %v streams are left of none", policy.name, got)
			}
		}
	}
}
