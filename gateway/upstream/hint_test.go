package upstream

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/store"
)

// spoken is a Backend of a protocol.
func spoken(protocol store.Protocol, b *store.Backend) *store.Backend {
	b.Spec.Protocol = protocol
	return b
}

// Peers say for a minute that endpoints are down which this gateway reaches: they keep their
// RPCs and their connections, get no further ones, and one PING each.
func TestHintsTakeNothingThatIsReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{})
		w.host("a:2", manners{})
		w.host("b:1", manners{})
		web := spoken(store.ProtocolHTTP1, to("web", "b:1"))
		list := w.put(to("x", "a:1", "a:2"), web)
		stream := open(list[0], 1)[0]
		open(list[1], 1)
		web1 := w.Backend(web.Key()).Endpoints[0]
		dials := len(w.dials("a:1"))
		for range 600 {
			for _, e := range []*Endpoint{list[0], list[1], web1} {
				w.Hint(e.Backend(), e.Address(), true)
			}
			time.Sleep(100 * time.Millisecond)
			for _, e := range []*Endpoint{list[0], list[1], web1} {
				if e.Condition() != 0 {
					t.Fatalf("%s is %s because peers say so", e.Address(), e.State())
				}
			}
		}
		if got := share(w, 100); got[0] < 30 || got[1] < 30 {
			t.Errorf("the RPCs go to %v", got)
		}
		if got := len(w.dials("a:1")); got != dials || stream.end() != nil {
			t.Errorf("%d connections more, the stream ended: %v", got-dials, stream.end())
		}
		if got := w.peer(h, 0).got(); got != "HEADERS 1, PING" {
			t.Errorf("the backend got %s", got)
		}
		if n := len(w.dials("b:1")); n < 55 || n > 65 {
			t.Errorf("dialled %d times in a minute, want once a second", n)
		}
		if checked, _, _ := w.Hints(); checked > 3*61 {
			t.Errorf("endpoints were looked at %d times in a minute, want once a second each", checked)
		}
	})
}

// An idle connection leads nowhere, as a peer has found that has RPCs there: the question
// whether it lives is asked at once, and the answer that does not come counts.
func TestHintFindsWhoFellSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{noPong: true, answer: func(p *peer, id uint32, _ string) { p.reply(id) }})
		e := w.put(to("x", "a:1"))[0]
		open(e, 1)
		time.Sleep(time.Minute)
		if e.Condition() != 0 {
			t.Fatalf("nobody has asked it, and it is %s", e.State())
		}
		w.set(func() { h.mute = true })
		w.Hint("default/x", "a:1", true)
		time.Sleep(1500 * time.Millisecond)
		if e.Condition() != balance.Stalled {
			t.Errorf("it does not answer, and is %s", e.State())
		}
		time.Sleep(12 * time.Second)
		if e.Condition()&balance.Down == 0 {
			t.Errorf("it has not answered for long, and is %s", e.State())
		}
	})
}

func TestHintFindsWhoIsGone(t *testing.T) {
	for _, protocol := range []store.Protocol{"", store.ProtocolHTTP1} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, h2.Limits{})
			w.host("a:1", manners{}).refuse = syscall.ECONNREFUSED
			b := to("x", "a:1")
			if protocol != "" {
				spoken(protocol, b)
			}
			w.Commit(w.Prepare(&store.Set{Backends: []*store.Backend{b}}))()
			e := w.Backend("default/x").Endpoints[0]
			time.Sleep(time.Minute)
			if n := len(w.dials("a:1")); n != 0 || e.Condition() != 0 {
				t.Fatalf("dialled %d times, it is %s", n, e.State())
			}
			w.Hint("default/x", "a:1", true)
			time.Sleep(50 * time.Millisecond)
			if e.State() != StateDown {
				t.Errorf("it refuses connections, and is %s", e.State())
			}
		})
	}
}

// A peer has reached what this gateway has not: the next dial does not wait for its turn.
func TestHintHurriesTheNextTry(t *testing.T) {
	for _, protocol := range []store.Protocol{"", store.ProtocolHTTP1} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, h2.Limits{})
			h := w.host("a:1", manners{})
			h.refuse = errors.New("no route to host")
			b := to("x", "a:1")
			if protocol != "" {
				spoken(protocol, b)
			}
			w.Commit(w.Prepare(&store.Set{Backends: []*store.Backend{b}}))()
			e := w.Backend("default/x").Endpoints[0]
			w.Hint("default/x", "a:1", true)
			time.Sleep(5 * time.Minute)
			w.Hint("default/x", "a:1", false)
			time.Sleep(100 * time.Millisecond)
			if e.State() != StateDown {
				t.Fatalf("a peer says that it is back, nobody reaches it, and it is %s", e.State())
			}
			w.set(func() { h.refuse = nil })
			time.Sleep(time.Second)
			w.Hint("default/x", "a:1", false)
			time.Sleep(100 * time.Millisecond)
			if e.Condition() != 0 {
				t.Errorf("it is back, and %s", e.State())
			}
		})
	}
}

// An endpoint that is ejected is tried by one RPC when a peer says that it is well, once.
func TestHintHasAnEjectedEndpointTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		w.host("a:1", manners{})
		w.host("a:2", manners{})
		list := w.put(to("x", "a:1", "a:2"))
		e := list[0]
		open(e, 1)
		open(list[1], 1)
		g := e.group.Load()
		g.mu.Lock()
		g.eject(e, "it fails")
		g.mu.Unlock()
		if e.Condition() != balance.Ejected {
			t.Fatalf("it is %s", e.State())
		}
		time.Sleep(time.Second)
		w.Hint("default/x", "a:1", false)
		time.Sleep(200 * time.Millisecond)
		if e.Condition() != balance.Ejected || !e.ProbeWaits() {
			t.Errorf("it is %s, and an RPC may try it: %v", e.State(), e.ProbeWaits())
		}
	})
}

// What peers say is bounded, whoever they speak of.
func TestHintsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		w.host("a:1", manners{}).refuse = syscall.ECONNREFUSED
		w.Commit(w.Prepare(&store.Set{Backends: []*store.Backend{to("x", "a:1")}}))()
		for i := range 1000 {
			w.Hint("default/x", "a:1", i%2 == 0)
			w.Hint("default/none", fmt.Sprintf("c:%d", i), true)
		}
		time.Sleep(50 * time.Millisecond)
		if checked, _, dropped := w.Hints(); checked > 1 || dropped != 1900 {
			t.Errorf("%d were looked at, %d of 2000 dropped", checked, dropped)
		}
		w.hints.mu.Lock()
		defer w.hints.mu.Unlock()
		if n := len(w.hints.pending); n > 1 {
			t.Errorf("%d are kept", n)
		}
	})
}

// What this gateway finds is told, the newest of each endpoint, and what peers say is not.
func TestObservationsTellWhatWasFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		h := w.host("a:1", manners{})
		w.host("a:2", manners{})
		list := w.put(to("x", "a:1", "a:2"))
		open(list[0], 1)
		open(list[1], 1)
		found := make(chan []Observation, 100)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer close(found)
			for list := w.Observations(ctx); list != nil; list = w.Observations(ctx) {
				found <- list
			}
		}()
		told := func(why string, want ...Observation) {
			t.Helper()
			time.Sleep(time.Second)
			var got []Observation
			for len(found) > 0 {
				got = append(got, <-found...)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: told %v, want %v", why, got, want)
			}
		}
		told("all is well")
		w.Hint("default/x", "a:2", true)
		told("a peer is wrong")
		w.set(func() { h.refuse = syscall.ECONNREFUSED })
		w.peer(h, 0).nc.Close()
		told("it is gone", Observation{"default/x", "a:1", true})
		told("it is still gone")
		w.set(func() { h.refuse = nil })
		w.Hint("default/x", "a:1", false)
		told("it is back", Observation{"default/x", "a:1", false})
		for i := range 3 * maxObserved {
			w.observed.note(endpointName{"default/y", fmt.Sprint(i)}, true)
		}
		w.observed.mu.Lock()
		if n := len(w.observed.changes); n > maxObserved {
			t.Errorf("%d are kept", n)
		}
		w.observed.mu.Unlock()
		cancel()
		for range found { // until the goroutine has ended
		}
	})
}

// Whether an endpoint is there is found out by a connection that nobody gets.
func TestReachLeavesEverythingAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		for address, m := range map[string]manners{"well:1": {}, "mute:1": {silent: true}, "http:1": {says: "HTTP/1.1 400 Bad Request\r\n\r\n"}, "full:1": {}, "web:1": {}, "other:1": {}} {
			w.host(address, m)
		}
		b := to("x", "well:1", "mute:1", "http:1", "gone:1", "full:1")
		web := spoken(store.ProtocolHTTP1, to("web", "web:1", "gone:2"))
		list := w.put(b, web)
		open(list[4], 1)
		w.set(func() { w.hosts["full:1"].refuse = syscall.ECONNREFUSED })
		for _, tt := range []struct {
			backend, address string
			want             bool
		}{
			{"x", "well:1", true},
			{"x", "mute:1", false}, // it takes connections, and says nothing
			{"x", "http:1", false},
			{"x", "gone:1", false},
			{"x", "full:1", true}, // takes no further connection, and was heard just now
			{"web", "web:1", true},
			{"web", "gone:2", false},
			{"x", "other:1", true}, // of no backend by now
			{"x", "gone:3", false},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			if got := w.Reach(ctx, "default/"+tt.backend, tt.address); got != tt.want {
				t.Errorf("%s at %s is reached: %v", tt.backend, tt.address, got)
			}
			cancel()
		}
		for i, e := range list {
			if e.Condition() != 0 || i < 4 && e.Connections() != 0 {
				t.Errorf("%s is %s, with %d connections", e.Address(), e.State(), e.Connections())
			}
		}
		time.Sleep(reachable)
		if w.Reach(t.Context(), "default/x", "full:1") {
			t.Error("what takes no connection, and was not heard for long, is reached")
		}
	})
}
