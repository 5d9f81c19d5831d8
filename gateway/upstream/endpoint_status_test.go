package upstream

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway/h2"
	"sluice/store"
)

func TestStatusTellsOfTheLastMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		e := w.put(to("x", "a:1"))[0]
		end := func(n int, v Verdict) {
			for range n {
				e.Acquire()
				e.Done(Result{Verdict: v, Took: 10 * time.Millisecond})
			}
		}
		want := func(when string, begun uint64, success float64, p99 time.Duration) {
			t.Helper()
			s := e.Status()
			if s.Begun != begun || s.Success != success || s.P99.Round(5*time.Millisecond) != p99 {
				t.Errorf("%s: %d begun, success %v, p99 %v; want %d, %v, about %v", when, s.Begun, s.Success, s.P99, begun, success, p99)
			}
		}
		want("nothing has happened", 0, -1, 0)
		end(30, Success)
		end(10, Failure)
		end(5, Neutral)
		e.Acquire()
		want("at once", 46, 0.75, 10*time.Millisecond)
		time.Sleep(50 * time.Second)
		end(2, Failure)
		want("fifty seconds later", 48, 30.0/42, 10*time.Millisecond)
		time.Sleep(20 * time.Second)
		want("seventy seconds later", 2, 0, 0)
		time.Sleep(time.Minute)
		want("later", 0, -1, 0)
		e.Done(Result{Verdict: Success})
	})
}

func TestStatusTellsTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		begun := time.Now()
		spec := to("x", "a:1")
		e := w.put(spec)[0]
		want := func(state, why string, since time.Time) {
			t.Helper()
			s := e.Status()
			if s.State != state || s.Why != why || !s.Since.Equal(since) {
				t.Errorf("%s since %v: %s; want %s since %v: %s", s.State, s.Since, s.Why, state, since, why)
			}
		}
		want(StateNew, "no RPC has wanted it yet", begun)
		time.Sleep(time.Minute)
		open(e, 1)
		want(StateDown, "nobody there", time.Now())
		since := time.Now()
		time.Sleep(time.Minute)
		want(StateDown, "nobody there", since)
		w.host("a:1", manners{})
		time.Sleep(backoffMax)
		if s := e.Status(); s.State != StateHealthy || s.Why != "" || s.Connections != 1 {
			t.Errorf("it is %s (%s) with %d connections, want healthy", s.State, s.Why, s.Connections)
		}
		drained := to("x", "a:1")
		drained.Spec.Endpoints[0].Weight = 0
		drained.Spec.Endpoints[0].Drain = &store.Drain{By: "ada"}
		w.put(drained)
		want(StateDraining, "drained by ada", time.Now())
	})
}

// Counters that are read one after the other may seem to have shrunk since a minute ago.
func TestStatusNeverTellsOfMoreThanThereWas(t *testing.T) {
	e := newEndpoint(NewPool(h2.NewEngine(h2.Limits{}), slog.New(slog.DiscardHandler)), identity{address: "a:1"})
	e.samples.ring = new([recentSamples]sample)
	for i := range e.samples.ring {
		e.samples.ring[i] = sample{begun: 5, succeeded: 4, failed: 3}
	}
	end(e, 3, Success)
	if s := e.Status(); s.Begun != 0 || s.Success != -1 {
		t.Errorf("%d RPCs, %g of which succeeded; want none", s.Begun, s.Success)
	}
}
