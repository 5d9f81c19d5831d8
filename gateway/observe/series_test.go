package observe

import (
	"sync"
	"testing"
	"time"

	"sluice/gateway/wire"
)

func TestSeriesCountsEachRPCOnce(t *testing.T) {
	s := newSeries(Key{"r", "n", "b"})
	for range 5 {
		s.Start()
	}
	s.End(wire.OK, time.Millisecond)
	s.End(wire.OK, -time.Second) // a clock that went back
	s.End(wire.Unavailable, time.Second)
	s.End(4711, time.Second)
	if s.Started() != 5 || s.Open() != 1 {
		t.Errorf("%d started, %d open; want 5, 1", s.Started(), s.Open())
	}
	for code, want := range map[wire.Code]uint64{wire.OK: 2, wire.Unavailable: 1, wire.Unknown: 1, 4712: 1, wire.Canceled: 0} {
		if got := s.Ended(code); got != want {
			t.Errorf("%d ended %v, want %d", got, code, want)
		}
	}
	if got := s.micros.Load(); got != 2_001_000 {
		t.Errorf("they took %d µs, want 2001000", got)
	}
}

func TestSeriesAddsUpAcrossGoroutines(t *testing.T) {
	s := newSeries(Key{"r", "n", "b"})
	var watcher sync.WaitGroup
	stop := make(chan struct{})
	watcher.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if open := s.Open(); open > 20000 {
				t.Errorf("%d open of 20000: more have ended than had started", open)
				return
			}
		}
	})
	var workers sync.WaitGroup
	for g := range 4 {
		workers.Go(func() {
			for range 5000 {
				s.Start()
				s.End(wire.Code(g), 1500*time.Nanosecond)
			}
		})
	}
	workers.Wait()
	close(stop)
	watcher.Wait()
	if s.Started() != 20000 || s.Open() != 0 || s.Ended(3) != 5000 || s.micros.Load() != 40000 {
		t.Errorf("%d started, %d open, %d ended with 3, %d µs; want 20000, 0, 5000, 40000",
			s.Started(), s.Open(), s.Ended(3), s.micros.Load())
	}
}

func TestSeriesAllocatesNothing(t *testing.T) {
	s := New().Use(Key{"r", "n", "b"})
	n := testing.AllocsPerRun(1000, func() {
		s.Start()
		s.End(wire.OK, 123*time.Microsecond)
	})
	if n != 0 {
		t.Errorf("%v allocations per RPC, want none", n)
	}
}

func BenchmarkSeriesStart(b *testing.B) {
	s := New().Use(Key{"r", "n", "b"})
	b.ReportAllocs()
	for b.Loop() {
		s.Start()
	}
}

// The goal is 40 ns.
func BenchmarkSeriesEnd(b *testing.B) {
	s := New().Use(Key{"r", "n", "b"})
	b.ReportAllocs()
	d := time.Duration(0)
	for b.Loop() {
		s.End(wire.OK, d&(1<<30-1))
		d += 7777
	}
}

func BenchmarkSeriesEndParallel(b *testing.B) {
	s := New().Use(Key{"r", "n", "b"})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		d := time.Duration(0)
		for pb.Next() {
			s.End(wire.OK, d&(1<<30-1))
			d += 7777
		}
	})
}
