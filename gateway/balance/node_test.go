package balance

import (
	"sync"
	"testing"
)

func TestNodeCountsStreams(t *testing.T) {
	var n Node
	if !n.Usable() || n.Active() != 0 || n.Weight() != 0 {
		t.Fatalf("zero node: usable %v, %d streams, weight %d", n.Usable(), n.Active(), n.Weight())
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				n.Acquire()
				n.Acquire()
				n.Release()
			}
		})
	}
	wg.Wait()
	if got := n.Active(); got != 400 {
		t.Errorf("%d streams, want 400", got)
	}
	n.SetUsable(false)
	n.SetWeight(7)
	if n.Usable() || n.Weight() != 7 {
		t.Errorf("usable %v, weight %d; want false, 7", n.Usable(), n.Weight())
	}
}

func TestNodeReleasedTwiceIsABug(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a release too many was not noticed")
		}
	}()
	var n Node
	n.Acquire()
	n.Release()
	n.Release()
}

func TestMaskGrowsAsNodesAreTried(t *testing.T) {
	var m Mask
	for _, i := range []int{0, 63, 64, 200} {
		if m.Has(i) {
			t.Errorf("node %d is in %v already", i, m)
		}
		m = m.With(i)
		if !m.Has(i) {
			t.Errorf("node %d is not in %v", i, m)
		}
	}
	for _, i := range []int{1, 62, 65, 199, 201, 1000} {
		if m.Has(i) {
			t.Errorf("node %d is in %v", i, m)
		}
	}
	if n := testing.AllocsPerRun(100, func() { m = m.With(3) }); n != 0 {
		t.Errorf("%v allocations to mark a node in a mask that is long enough", n)
	}
}
