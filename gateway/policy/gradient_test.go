package policy

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"
)

// server is a backend with so many workers, each of which takes about as long for an RPC;
// whoever comes when all are busy waits. It lives in a simulated time.
type server struct {
	random  *rand.Rand
	workers int
	takes   time.Duration
	busy    int
	queue   []job
	done    jobs // at work, by when they end
}

// job is one RPC.
type job struct {
	slot  Slot
	began time.Time
	ends  time.Time
}

// jobs is a heap.
type jobs []job

func (h jobs) Len() int           { return len(h) }
func (h jobs) Less(i, j int) bool { return h[i].ends.Before(h[j].ends) }
func (h jobs) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *jobs) Push(x any)        { *h = append(*h, x.(job)) }
func (h *jobs) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

func (s *server) begin(j job, now time.Time) {
	if s.busy == s.workers {
		s.queue = append(s.queue, j)
		return
	}
	s.busy++
	j.ends = now.Add(time.Duration(float64(s.takes) * (0.8 + 0.4*s.random.Float64())))
	heap.Push(&s.done, j)
}

func (s *server) next(now time.Time) {
	s.busy--
	if len(s.queue) > 0 {
		first := s.queue[0]
		s.queue = s.queue[1:]
		s.begin(first, now)
	}
}

// figures are what a stretch of a simulation comes to.
type figures struct {
	served, refused int
	limit           float64 // mean
	took            time.Duration
}

// simulation has callers come at random, so many a second.
type simulation struct {
	server
	g    *Gradient
	now  time.Time
	next time.Time // caller
}

func newSimulation(seed uint64, workers int, takes time.Duration, least, most int) *simulation {
	s := &simulation{now: time.Unix(1_700_000_000, 0)}
	s.random = rand.New(rand.NewPCG(seed, 3))
	s.workers, s.takes, s.server.random = workers, takes, s.random
	s.g = NewGradient(least, most, s.now, s.random.Float64)
	s.next = s.now
	return s
}

func (s *simulation) run(d time.Duration, rate float64) (f figures) {
	end := s.now.Add(d)
	var took time.Duration
	var limits float64
	arrivals := 0
	for {
		if len(s.done) > 0 && s.done[0].ends.Before(s.next) {
			j := heap.Pop(&s.done).(job)
			if s.now = j.ends; s.now.After(end) {
				s.next = maxTime(s.next, s.now)
			}
			s.server.next(s.now)
			s.g.Release(j.slot, s.now, s.now.Sub(j.began), true)
			took += s.now.Sub(j.began)
			f.served++
		} else {
			if s.now = s.next; s.now.After(end) {
				break
			}
			s.next = s.now.Add(time.Duration(s.random.ExpFloat64() / rate * float64(time.Second)))
			arrivals++
			limits += float64(s.g.Limit())
			if slot, ok := s.g.Acquire(s.now); ok {
				s.begin(job{slot: slot, began: s.now}, s.now)
			} else {
				f.refused++
			}
		}
	}
	f.limit = limits / float64(max(arrivals, 1))
	if f.served > 0 {
		f.took = took / time.Duration(f.served)
	}
	return f
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestGradientFindsTheKnee offers twice of what a server can do: it stays at work, and
// RPCs take little longer than at their best.
func TestGradientFindsTheKnee(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine, and much to work out")
	}
	tests := []struct {
		workers int
		takes   time.Duration
	}{
		{10, 20 * time.Millisecond}, {50, 20 * time.Millisecond}, {200, 50 * time.Millisecond}, {50, 2 * time.Millisecond},
	}
	for _, test := range tests {
		const testFor = 20 * time.Second
		capacity := float64(test.workers) / test.takes.Seconds()
		s := newSimulation(1, test.workers, test.takes, 3, 1000)
		s.run(10*time.Second, 2*capacity)
		f := s.run(testFor, 2*capacity)
		t.Logf("%d workers, %v: limit %.0f, %.0f %% of the capacity, %v each", test.workers, test.takes, f.limit, 100*float64(f.served)/testFor.Seconds()/capacity, f.took)
		if used := float64(f.served) / testFor.Seconds() / capacity; used < 0.95 {
			t.Errorf("%d workers: %.0f %% of the capacity was used, want 95 or more", test.workers, 100*used)
		}
		if knee := float64(test.workers); f.limit < knee || f.limit > 2.5*knee {
			t.Errorf("%d workers: limit of %.0f, want 1 to 2.5 times as many", test.workers, f.limit)
		}
		if f.took > test.takes*5/2 {
			t.Errorf("%d workers: RPCs took %v, want %v at most", test.workers, f.took, test.takes*5/2)
		}
	}
}

// A server that is not at its limits refuses nobody, whatever is looked for.
func TestGradientRefusesNobodyBelowTheKnee(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine, and much to work out")
	}
	s := newSimulation(2, 50, 20*time.Millisecond, 3, 1000)
	s.run(20*time.Second, 1250)
	f := s.run(200*time.Second, 1250) // half of what it can do
	if share := float64(f.refused) / float64(f.refused+f.served); share > 0.001 {
		t.Errorf("%d of %d RPCs were refused by a server that is half idle", f.refused, f.refused+f.served)
	}
}

// TestGradientRecoversFromASlowdown: while a server is slow, little waits before it; once
// it is well again all of it is used, at once and not after the next probe.
func TestGradientRecoversFromASlowdown(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine, and much to work out")
	}
	const workers, takes = 50, 20 * time.Millisecond
	capacity := workers / takes.Seconds()
	s := newSimulation(3, workers, takes, 3, 1000)
	s.run(30*time.Second, 1.5*capacity)
	well := s.run(10*time.Second, 1.5*capacity)
	s.takes = 5 * takes
	s.run(5*time.Second, 1.5*capacity)
	slow := s.run(20*time.Second, 1.5*capacity)
	s.takes = takes
	s.run(2*time.Second, 1.5*capacity)
	back := s.run(20*time.Second, 1.5*capacity)
	t.Logf("limit %.0f, slow %.0f (%v each), back %.0f (%v each)", well.limit, slow.limit, slow.took, back.limit, back.took)
	if used := float64(slow.served) / 20 / (capacity / 5); used < 0.9 || slow.took > 5*takes*5/2 {
		t.Errorf("while it is slow, %.0f %% of what the server can do is used, and RPCs take %v", 100*used, slow.took)
	}
	if used := float64(back.served) / 20 / capacity; used < 0.9 {
		t.Errorf("%.0f %% of the capacity is used two seconds after the slowdown, want 90 or more", 100*used)
	}
	s.run(90*time.Second, 1.5*capacity) // a probe comes by
	later := s.run(20*time.Second, 1.5*capacity)
	if later.limit < 0.7*well.limit || later.limit > 1.4*well.limit {
		t.Errorf("in the end the limit is %.0f, and was %.0f before the slowdown", later.limit, well.limit)
	}
}

func TestGradientStaysWithinItsBounds(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine, and much to work out")
	}
	s := newSimulation(4, 500, time.Millisecond, 20, 60)
	for _, takes := range []time.Duration{time.Millisecond, time.Second, 100 * time.Microsecond} {
		s.takes = takes
		for range 20 {
			s.run(200*time.Millisecond, 20_000)
			if limit := s.g.Limit(); limit < 20 || limit > 60 {
				t.Errorf("limit %d with RPCs of %v, want 20 to 60", limit, takes)
			}
		}
	}
}

// Who waits for something to happen is no load: after a while it does not count.
func TestGradientForgetsThoseWhoWaitForever(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	g := NewGradient(10, 10, now, func() float64 { return 0.5 })
	var slots []Slot
	for range 10 {
		slot, ok := g.Acquire(now)
		if !ok {
			t.Fatal("refused below the limit")
		}
		slots = append(slots, slot)
	}
	if _, ok := g.Acquire(now.Add(9 * time.Second)); ok {
		t.Error("one more than the limit is let in")
	}
	later := now.Add(16 * time.Second)
	if _, ok := g.Acquire(later); !ok {
		t.Error("ten who wait for 16 s keep others out")
	}
	for _, slot := range slots {
		g.Release(slot, later, 16*time.Second, true) // they had been forgotten
	}
	for range 9 {
		if _, ok := g.Acquire(later); !ok {
			t.Fatal("refused below the limit")
		}
	}
	if _, ok := g.Acquire(later); ok {
		t.Error("those who were forgotten have made room twice")
	}
}

func TestGradientSurvivesClocksThatJump(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine, and much to work out")
	}
	for _, jump := range []time.Duration{1000 * time.Hour, -1000 * time.Hour, -7 * time.Second} {
		s := newSimulation(5, 20, 10*time.Millisecond, 3, 1000)
		s.run(20*time.Second, 4000)
		s.now, s.next = s.now.Add(jump), s.next.Add(jump)
		for i := range s.done {
			s.done[i].ends = s.done[i].ends.Add(jump)
		}
		s.run(5*time.Second, 4000)
		if f := s.run(30*time.Second, 4000); float64(f.served)/30 < 1700 {
			t.Errorf("jump of %v: %d RPCs a second, the server can do 2000", jump, f.served/30)
		}
	}
}

func BenchmarkGradient(b *testing.B) {
	now := time.Now()
	g := NewGradient(3, 1000, now, rand.Float64)
	for b.Loop() {
		now = now.Add(100 * time.Microsecond)
		slot, _ := g.Acquire(now)
		g.Release(slot, now, time.Millisecond, true)
	}
}
