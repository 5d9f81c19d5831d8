package h2

import (
	"testing"
	"time"
)

func TestAllowanceRefills(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	type step struct {
		at   time.Duration
		n    int
		want bool
	}
	for _, tt := range []struct {
		name  string
		burst int
		rate  float64
		steps []step
	}{
		{"a burst", 3, 1, []step{{0, 1, true}, {0, 2, true}, {0, 1, false}}},
		{"one at once over it", 3, 1, []step{{0, 4, false}}},
		{"refill", 2, 1, []step{{0, 2, true}, {time.Second, 1, true}, {time.Second, 1, false}}},
		{"a part of a refill", 2, 1, []step{{0, 2, true}, {time.Second / 2, 1, false}}},
		{"no more than the burst", 2, 1, []step{{0, 2, true}, {time.Hour, 2, true}, {time.Hour, 1, false}}},
		{"at its rate for ever", 1, 10, []step{
			{0, 1, true}, {100 * time.Millisecond, 1, true}, {200 * time.Millisecond, 1, true}, {300 * time.Millisecond, 1, true},
		}},
		{"a clock that goes back refills nothing", 1, 10, []step{{time.Hour, 1, true}, {0, 1, false}, {time.Millisecond, 1, false}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var a allowance
			for i, s := range tt.steps {
				if got := a.spend(start.Add(s.at), s.n, tt.burst, tt.rate); got != s.want {
					t.Errorf("step %d: spending %d after %v: %v, want %v", i, s.n, s.at, got, s.want)
				}
			}
		})
	}
}

func TestPaceJudgesSpans(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	const rate, span = 100, 60 * time.Second
	var p pace
	if p.slow(at(0), rate, span) {
		t.Error("nothing waits: nothing is slow")
	}
	p.begin(at(0))
	p.begin(at(30)) // it has begun already
	p.moved = 5999
	if p.slow(at(59), rate, span) {
		t.Error("the span is not over")
	}
	if !p.slow(at(60), rate, span) {
		t.Error("5999 bytes in 60s are less than 100 a second")
	}
	p.moved += 6000
	if p.slow(at(119), rate, span) || p.slow(at(120), rate, span) {
		t.Error("6000 bytes in 60s are enough")
	}
	p.moved += 1
	if !p.slow(at(300), rate, span) {
		t.Error("each span counts for itself")
	}
	p = pace{}
	p.begin(at(0))
	if p.slow(at(1000), -1, span) {
		t.Error("no rate is asked for")
	}
}

func TestForgivenRemembersTheLatest(t *testing.T) {
	var f forgiven
	for i := range uint32(forgivenMax + 10) {
		f.add(2*i + 1)
	}
	for i := range uint32(forgivenMax + 10) {
		if got, want := f.has(2*i+1), i >= 10; got != want {
			t.Errorf("stream %d of %d: remembered %v, want %v", i, forgivenMax+10, got, want)
		}
	}
	if len(f.ids) != forgivenMax {
		t.Errorf("%d numbers are kept, want %d", len(f.ids), forgivenMax)
	}
}

func TestFinishedRemembersTheLatest(t *testing.T) {
	var f finished
	if f.has(1) {
		t.Error("nothing has finished")
	}
	for i := range uint32(300) {
		f.add(2*i + 1)
	}
	for i := range uint32(300) {
		if got, want := f.has(2*i+1), i >= 300-8; got != want {
			t.Errorf("stream %d: remembered %v, want %v", 2*i+1, got, want)
		}
	}
}

// A long life without fault is no credit for a flood of resets.
func TestGuardComparesResetsWithRecentStreams(t *testing.T) {
	c := NewEngine(Limits{}).NewServer(NewTransport(nil, nil), nil, time.Now())
	c.now = time.Unix(1_000_000, 0)
	for range 1_000_000 {
		c.guard.opened()
	}
	resets := 0
	for c.guard.opened(); c.guard.violation(c) == nil; c.guard.opened() {
		if resets++; resets > 2000 {
			t.Fatal("2000 resets at once are forgiven")
		}
	}
	if resets < 200 {
		t.Errorf("%d resets are too many", resets)
	}
}
