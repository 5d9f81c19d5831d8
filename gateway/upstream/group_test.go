package upstream

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/store"
)

// grownBy is the backend with one more endpoint.
func grownBy(spec *store.Backend, address string) *store.Backend {
	grown := *spec
	grown.Spec.Endpoints = append(slices.Clone(spec.Spec.Endpoints), store.Endpoint{Address: address, Weight: 1})
	return &grown
}

// One that joins a backend in use is connected before it gets an RPC.
func TestGroupConnectsNewcomersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		w.host("a:1", manners{})
		late := w.host("a:2", manners{})
		late.mute = true // it answers when it is told to
		spec := to("x", "a:1")
		open(w.put(spec)[0], 1)[0].wantOpen(t)
		list := w.put(grownBy(spec, "a:2"))
		if got := share(w, 100); got[1] != 0 {
			t.Errorf("it is not connected, and the RPCs go to %v", got)
		}
		if s := list[1].Status(); s.State != StateConnecting {
			t.Errorf("it is %s", s.State)
		}
		w.set(func() { late.mute = false })
		time.Sleep(7 * time.Second) // the first dial had its five seconds
		if s := list[1].Status(); s.State != StateHealthy || s.Connections != 1 {
			t.Errorf("it is %s with %d connections", s.State, s.Connections)
		}
		if got := share(w, 100); got[1] < 30 {
			t.Errorf("it is connected, and the RPCs go to %v", got)
		}
	})
}

// A newcomer that cannot be reached costs nobody an RPC, and a hundred that come at once
// are all connected.
func TestGroupConnectsManyNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		w.host("a:1", manners{})
		spec := to("x", "a:1")
		open(w.put(spec)[0], 1)[0].wantOpen(t)
		addresses := make(map[string]bool)
		for i := range 100 {
			address := "b:" + strings.Repeat("1", i+1)
			if i%10 != 0 {
				w.host(address, manners{})
				addresses[address] = true
			}
			spec = grownBy(spec, address)
		}
		list := w.put(spec)
		b := w.Backend("default/x")
		for range 1000 {
			e, _ := b.Pick(balance.Request{})
			if e.Address() != "a:1" && e.Connections() == 0 {
				t.Fatalf("%s got an RPC before it was connected", e.Address())
			}
			e.Done(Result{})
		}
		time.Sleep(time.Second)
		for _, e := range list[1:] {
			if got := e.Condition() == 0; got != addresses[e.Address()] {
				t.Errorf("%s is %s", e.Address(), e.Status().State)
			}
		}
	})
}

// Where nobody is connected there is nothing to wait for: the first RPCs wait for the
// dial, as at a start.
func TestGroupDoesNotMakeTheFirstWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		spec := to("x", "a:1")
		w.put(spec)
		w.host("a:2", manners{})
		list := w.put(grownBy(spec, "a:2"))
		if list[1].Condition() != 0 || len(w.dials("a:2")) != 0 {
			t.Errorf("it is %s, and was dialled %d times", list[1].Status().State, len(w.dials("a:2")))
		}
		open(list[1], 1)[0].wantOpen(t)
	})
}

// An endpoint that has no weight is not connected, until it has.
func TestGroupConnectsWhoGetsWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		w.host("a:1", manners{})
		w.host("a:2", manners{})
		spec := to("x", "a:1")
		open(w.put(spec)[0], 1)[0].wantOpen(t)
		idle := grownBy(spec, "a:2")
		idle.Spec.Endpoints[1].Weight = 0
		w.put(idle)
		time.Sleep(time.Minute)
		if n := len(w.dials("a:2")); n != 0 {
			t.Errorf("dialled %d times", n)
		}
		list := w.put(grownBy(spec, "a:2"))
		synctest.Wait()
		if n := len(w.dials("a:2")); n != 1 || list[1].Condition() != 0 {
			t.Errorf("dialled %d times, it is %s", n, list[1].Status().State)
		}
	})
}

// Who leaves before it was ever reached leaves nothing behind.
func TestGroupForgetsNewcomersThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		w.host("a:1", manners{})
		spec := to("x", "a:1")
		open(w.put(spec)[0], 1)[0].wantOpen(t)
		grown := grownBy(spec, "a:2")
		w.put(grown)
		time.Sleep(3 * time.Second)
		w.put(spec)
		time.Sleep(3 * time.Second)
		n := len(w.dials("a:2"))
		time.Sleep(time.Minute)
		if more := len(w.dials("a:2")) - n; more != 0 {
			t.Errorf("dialled %d times after it had left", more)
		}
		w.host("a:2", manners{})
		if list := w.put(grown); list[1].Condition()&balance.Down == 0 && list[1].Connections() == 0 {
			t.Error("it came back, is not connected, and gets RPCs")
		}
		time.Sleep(time.Second)
		if list := w.put(grown); list[1].Condition() != 0 {
			t.Errorf("it came back, and is %s", list[1].Status().State)
		}
	})
}

// Slow start gives a newcomer its share step by step; who was there at the beginning
// has it at once.
func TestGroupStartsNewcomersSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		w.host("a:1", manners{})
		w.host("a:2", manners{})
		spec := to("x", "a:1")
		spec.Spec.LoadBalancing.SlowStart = &store.SlowStart{Window: store.Duration(10 * time.Second), Exponent: 1, MinWeight: 10}
		first := w.put(spec)[0]
		open(first, 1)[0].reset()
		time.Sleep(time.Second)
		if s := first.Status(); s.State != StateHealthy {
			t.Errorf("the first is %s: %s", s.State, s.Why)
		}
		e := w.put(grownBy(spec, "a:2"))[1]
		synctest.Wait()
		if s := e.Status(); s.State != StateWarming || s.Why != "slow start, for 10s" {
			t.Errorf("it is %s: %s", s.State, s.Why)
		}
		var got []int
		for range 5 {
			n := 0
			b := w.Backend("default/x")
			for range 1000 {
				picked, i := b.Pick(balance.Request{})
				n += i
				picked.Done(Result{})
			}
			got = append(got, n)
			time.Sleep(2500 * time.Millisecond)
		}
		if !slices.IsSorted(got) || got[0] > 150 || got[2] < 200 || got[2] > 420 || got[4] < 440 {
			t.Errorf("of a thousand RPCs it got %v, 2.5s apart", got)
		}
		if s := e.Status(); s.State != StateHealthy {
			t.Errorf("after its time it is %s", s.State)
		}
		end(e, 5, Failure)
		time.Sleep(31 * time.Second)
		share(w, 10)
		if s := e.Status(); s.State != StateWarming {
			t.Errorf("it is back from an ejection, and %s", s.State)
		}
		w.put(to("x", "a:1", "a:2"))
		if s := e.Status(); s.State != StateHealthy {
			t.Errorf("without slow start it is %s", s.State)
		}
	})
}

// A server that lets go of a connection now and then is warm still; one that could not be
// reached in between is another process.
func TestGroupStartsSlowlyWhoWasAway(t *testing.T) {
	for _, tt := range []struct {
		name string
		away time.Duration
		want string
	}{
		{"its connection was old", 0, StateHealthy},
		{"it was started anew", 50 * time.Millisecond, StateWarming},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				h := w.host("a:1", manners{})
				w.host("a:2", manners{})
				spec := to("x", "a:1", "a:2")
				spec.Spec.LoadBalancing.SlowStart = &store.SlowStart{Window: store.Duration(30 * time.Second), Exponent: 1, MinWeight: 10}
				list := w.put(spec)
				open(list[0], 1)
				open(list[1], 1)
				time.Sleep(time.Minute)
				if tt.away > 0 {
					w.set(func() { h.refuse = errors.New("away") })
				}
				w.peer(h, 0).goAway(1<<31-1, http2.ErrCodeNo, "max_age")
				time.Sleep(tt.away)
				w.set(func() { h.refuse = nil })
				time.Sleep(time.Second)
				if s := list[0].Status(); s.State != tt.want {
					t.Errorf("it is %s: %s, want %s", s.State, s.Why, tt.want)
				}
			})
		})
	}
}
