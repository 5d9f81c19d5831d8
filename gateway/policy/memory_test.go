package policy

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

// play has a guard look at what is held, percent of a limit, each after 100 ms, and
// returns when memory was short: an "x" for each such look.
func play(limit uint64, percents []float64) (short string, times int64, collections int) {
	now := time.Unix(1_700_000_000, 0)
	m := &Memory{}
	cycles := uint64(0)
	i := 0
	m.read = func() usage {
		cycles++ // the collector is at work all the time
		return usage{held: uint64(percents[i] / 100 * float64(limit)), limit: limit, cycles: cycles}
	}
	m.collect = func() { collections++ }
	for i = range percents {
		now = now.Add(memoryEvery)
		m.look(now)
		if m.Short() {
			short += "x"
		} else {
			short += "."
		}
	}
	return short, m.Times(), collections
}

func TestMemoryHasHysteresis(t *testing.T) {
	percents := []float64{10, 89.9, 90.1, 95, 89, 85.1, 84.9, 89, 91, 100, 20}
	short, times, _ := play(1<<30, percents)
	if want := "..xxxx..xx."; short != want || times != 2 {
		t.Errorf("short %s, %d times; want %s, twice", short, times, want)
	}
}

func TestMemoryIsNeverShortWithoutALimit(t *testing.T) {
	for _, limit := range []uint64{0, math.MaxInt64} {
		if short, _, collections := play(limit, []float64{50, 100, 100}); short != "..." || collections != 0 {
			t.Errorf("limit %d: short %s, %d collections", limit, short, collections)
		}
	}
}

// A count that is old says nothing: there may be garbage only. It is taken anew, before
// anybody is turned away, and no more often than once a second.
func TestMemoryAsksForANewCount(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	held, collections := uint64(95), 0
	m := &Memory{read: func() usage { return usage{held: held, limit: 100, cycles: 7} }}
	m.collect = func() { collections++ }
	m.look(now)
	if !m.Short() {
		t.Error("a fresh count of 95 % is not believed")
	}
	for range 30 { // three seconds without a collection, but for those that are asked for
		now = now.Add(memoryEvery)
		m.look(now)
	}
	if collections != 2 || !m.Short() {
		t.Errorf("%d collections in three seconds, short=%v; want 2, true", collections, m.Short())
	}
	m.collect = func() { collections++; held = 30 }
	for range 12 {
		now = now.Add(memoryEvery)
		m.look(now)
	}
	if collections != 3 || m.Short() {
		t.Errorf("%d collections, short=%v; want a third, and enough", collections, m.Short())
	}

	collections = 0
	idle := &Memory{read: func() usage { return usage{held: held, limit: 100, cycles: 7} }, collect: func() { collections++; held = 30 }}
	idle.look(now)
	held, now = 95, now.Add(time.Minute)
	for range 3 {
		now = now.Add(memoryEvery)
		idle.look(now)
		if idle.Short() {
			t.Fatal("somebody is turned away for garbage")
		}
	}
	if collections != 1 {
		t.Errorf("%d collections, want 1", collections)
	}
}

func TestMemoryRunsUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		looks := 0
		m.read = func() usage { looks++; return usage{held: 99, limit: 100, cycles: uint64(looks)} }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second+50*time.Millisecond)
		defer cancel()
		if err := m.Run(ctx); err != nil || looks != 10 || !m.Short() {
			t.Errorf("%d looks in a second, short=%v, %v", looks, m.Short(), err)
		}
	})
}

// What the runtime tells makes sense: of this process, which has no limit but the one that
// is set here.
func TestMemoryReadsTheRuntime(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(3 << 30))
	ballast := make([]byte, 64<<20)
	debug.FreeOSMemory()
	u := NewMemory().read()
	runtime.KeepAlive(ballast)
	if u.limit != 3<<30 || u.held < 64<<20 || u.held > 1<<30 || u.cycles == 0 {
		t.Errorf("usage %+v with %d bytes of ballast", u, len(ballast))
	}
}

func BenchmarkMemoryLook(b *testing.B) {
	m := NewMemory()
	for b.Loop() {
		m.look(time.Now())
	}
}
