package balance

import (
	"slices"
	"testing"
)

// Four nodes are local, four are not. What part of 2,000 RPCs stays, by what is wrong
// with whom.
func TestZonesSpillOverWhatIsMissing(t *testing.T) {
	all := []int{0, 1, 2, 3}
	for _, tc := range []struct {
		name       string
		spillBelow int
		ill        []int
		want       int
	}{
		{"all are well", 70, nil, 2000},
		{"one is down", 70, []int{0}, 2000},
		{"two are down", 70, []int{0, 1}, 1429}, // 50 % of 70 %
		{"three are down", 70, []int{0, 1, 2}, 714},
		{"all are down", 70, all, 0},
		{"all are down, as are others", 70, []int{0, 1, 2, 3, 4, 5}, 0},
		{"one is down, and all are wanted", 100, []int{0}, 1500},
		{"three are down, and one will do", 1, []int{0, 1, 2}, 2000},
		{"the others are down", 70, []int{4, 5, 6, 7}, 2000},
		{"the others and one are down", 100, []int{0, 4, 5, 6, 7}, 2000},
	} {
		for _, policy := range policies {
			t.Run(tc.name+"/"+policy.name, func(t *testing.T) {
				set := nodes(slices.Repeat([]uint32{1}, 8)...)
				p := policy.with(set, inZone(8, 4, tc.spillBelow))
				down(set, tc.ill...)
				p.Refresh()
				got := sequential(t, p, set, nil, 2000)
				if stayed := got[0] + got[1] + got[2] + got[3]; !within(stayed, tc.want, 110) {
					t.Errorf("picked %v, %d stayed, want %d", got, stayed, tc.want)
				}
			})
		}
	}
}

// inZone is of a gateway in the zone of the first so many of n nodes.
func inZone(n, local, spillBelow int) Settings {
	s := Settings{Panic: 50, SpillBelow: spillBelow, Local: make([]bool, n)}
	for i := range local {
		s.Local[i] = true
	}
	return s
}

// What others make has zones, too.
func TestZonesHoldForEachPolicy(t *testing.T) {
	for _, policy := range made {
		for _, n := range []int{2, 8} {
			set := nodes(slices.Repeat([]uint32{1}, n)...)
			p := manyKeys{policy.make(set, inZone(n, n/2, 100)), seeded()}
			want := []int{0, 1, 2, 3}[:n/2]
			if got := picked(p, set, nil); !slices.Equal(got, want) {
				t.Errorf("%s: picked %v, want %v", policy.name, got, want)
			}
			down(set, want...)
			p.Refresh()
			if got := picked(p, set, nil); len(got) != n/2 || got[0] != n/2 {
				t.Errorf("%s: picked %v, want those of the other zone", policy.name, got)
			}
		}
	}
}

func TestZonesAreOfNoAccountWhenAllNodesAreInOne(t *testing.T) {
	for _, local := range []int{0, 3} {
		set := nodes(1, 1, 1)
		p := seededPicker(set, inZone(3, local, 70), leastOf)
		if got := picked(p, set, nil); len(got) != 3 {
			t.Errorf("%d of 3 are local: picked %v", local, got)
		}
	}
	// A drained node is nowhere.
	set := nodes(1, 1, 0)
	p := seededPicker(set, inZone(3, 2, 70), leastOf)
	if got := picked(p, set, nil); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("picked %v, want 0 and 1", got)
	}
}

// An RPC that has tried the local nodes goes to another zone before it goes to a node
// that is ill.
func TestZonesTryOthersBeforeTheIll(t *testing.T) {
	set := nodes(1, 1, 1, 1)
	p := seededPicker(set, inZone(4, 2, 50), leastOf)
	down(set, 1)
	p.Refresh()
	if got := picked(p, set, maskOf(0)); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("picked %v, want those of the other zone", got)
	}
	if got := picked(p, set, maskOf(0, 2, 3)); !slices.Equal(got, []int{1}) {
		t.Errorf("picked %v, want what is left", got)
	}
}

// Which keys spill does not change from one RPC to the next.
func TestZonesKeepAKeyWhereItIs(t *testing.T) {
	set := nodes(1, 1, 1, 1, 1, 1)
	p := seededPicker(set, inZone(6, 3, 100), maglevHash)
	down(set, 0)
	p.Refresh()
	spilled := 0
	for key := range uint64(1000) {
		first := p.Pick(Request{Key: key, Keyed: true})
		for range 5 {
			if i := p.Pick(Request{Key: key, Keyed: true}); i != first {
				t.Fatalf("key %d goes to node %d and to node %d", key, first, i)
			}
		}
		if first >= 3 {
			spilled++
		}
	}
	if !within(spilled, 333, 60) {
		t.Errorf("%d keys of 1000 spill over, want a third", spilled)
	}
}
