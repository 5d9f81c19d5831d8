package upstream

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/store"
)

// hashOnUser is what RingHash and Maglev need.
var hashOnUser = &store.HashOn{Header: "x-user"}

// balancing puts a backend of three endpoints in force, and returns it.
func balancing(w *world, lb store.LoadBalancing) *Backend {
	w.t.Helper()
	b := to("x", "a:1", "b:1", "c:1")
	b.Spec.LoadBalancing = lb
	w.put(b)
	return w.Backend(b.Key())
}

// reached is which endpoints answer a number of RPCs, one after the other.
func reached(b *Backend, n int, request func(k int) balance.Request) map[string]int {
	counts := make(map[string]int)
	for k := range n {
		if e, _ := b.Pick(request(k)); e != nil {
			counts[e.Address()]++
			e.Done(Result{})
		}
	}
	return counts
}

func unkeyed(int) balance.Request { return balance.Request{} }

// Each policy is the one that was asked for, by what only it does.
func TestBackendPicksAsItsPolicySays(t *testing.T) {
	oneKey := func(int) balance.Request { return balance.Request{Key: balance.Hash("ada"), Keyed: true} }
	for _, tc := range []struct {
		lb     store.LoadBalancing
		timed  bool
		hashed bool
	}{
		{store.LoadBalancing{Policy: store.LeastRequest}, false, false},
		{store.LoadBalancing{Policy: store.RoundRobin}, false, false},
		{store.LoadBalancing{Policy: store.PeakEWMA}, true, false},
		{store.LoadBalancing{Policy: store.RingHash, HashOn: hashOnUser}, false, true},
		{store.LoadBalancing{Policy: store.Maglev, HashOn: hashOnUser, LoadBound: 125}, false, true},
	} {
		t.Run(string(tc.lb.Policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				b := balancing(w, tc.lb)
				if b.Timed() != tc.timed || (b.HashOn() != nil) != tc.hashed {
					t.Errorf("timed %v, hashes on %v", b.Timed(), b.HashOn())
				}
				if got := reached(b, 300, oneKey); (len(got) == 1) != tc.hashed {
					t.Errorf("RPCs of one user went to %v", got)
				}
				got := reached(b, 300, unkeyed)
				if len(got) != 3 || tc.lb.Policy == store.RoundRobin && got["a:1"] != 100 {
					t.Errorf("RPCs without a key went to %v", got)
				}
				for _, e := range b.Endpoints[:2] { // what takes long is left alone by one of them
					e.Observe(time.Now(), time.Second)
				}
				b.Endpoints[2].Observe(time.Now(), time.Millisecond)
				if got := reached(b, 300, unkeyed); (got["c:1"] == 300) != tc.timed {
					t.Errorf("two are slow, and RPCs went to %v", got)
				}
			})
		})
	}
}

// Two gateways, which know the endpoints in another order, send a key to the same one.
func TestBackendHashesAsOtherGatewaysDo(t *testing.T) {
	for _, policy := range []store.Policy{store.RingHash, store.Maglev} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, h2.Limits{})
			here := to("x", "a:1", "b:1", "c:1", "d:1")
			there := to("y", "d:1", "b:1", "a:1", "c:1")
			for _, b := range []*store.Backend{here, there} {
				b.Spec.LoadBalancing = store.LoadBalancing{Policy: policy, HashOn: hashOnUser}
			}
			w.put(here, there)
			for key := range uint64(200) {
				r := balance.Request{Key: key, Keyed: true}
				e, _ := w.Backend(here.Key()).Pick(r)
				o, _ := w.Backend(there.Key()).Pick(r)
				if e.Address() != o.Address() {
					t.Fatalf("%s: key %d is %s here and %s there", policy, key, e.Address(), o.Address())
				}
			}
		})
	}
}

func TestBackendPrefersTheGatewaysZone(t *testing.T) {
	for _, tc := range []struct {
		name       string
		zone       string // of the gateway
		preference *store.ZonePreference
		down       []string
		want       []string
	}{
		{"asked for", "north", &store.ZonePreference{SpillBelow: 50}, nil, []string{"a:1", "b:1"}},
		{"not asked for", "north", nil, nil, []string{"a:1", "b:1", "c:1", "d:1"}},
		{"the gateway has no zone", "", &store.ZonePreference{SpillBelow: 50}, nil, []string{"a:1", "b:1", "c:1", "d:1"}},
		{"nobody is there", "west", &store.ZonePreference{SpillBelow: 50}, nil, []string{"a:1", "b:1", "c:1", "d:1"}},
		{"half are down", "north", &store.ZonePreference{SpillBelow: 50}, []string{"a:1"}, []string{"b:1"}},
		{"all are down", "north", &store.ZonePreference{SpillBelow: 50}, []string{"a:1", "b:1"}, []string{"c:1", "d:1"}},
		{"a part is missing", "north", &store.ZonePreference{SpillBelow: 100}, []string{"a:1"}, []string{"b:1", "c:1", "d:1"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, h2.Limits{})
			w.Zone = tc.zone
			spec := to("x", "a:1", "b:1", "c:1", "d:1")
			for i, zone := range []string{"north", "north", "south", ""} {
				spec.Spec.Endpoints[i].Zone = zone
			}
			spec.Spec.LoadBalancing.ZonePreference = tc.preference
			w.put(spec)
			b := w.Backend(spec.Key())
			for _, e := range b.Endpoints {
				e.SetCondition(balance.Stalled, slices.Contains(tc.down, e.Address()))
			}
			b.Refresh()
			got := reached(b, 1000, unkeyed)
			for _, e := range b.Endpoints {
				if (got[e.Address()] > 0) != slices.Contains(tc.want, e.Address()) {
					t.Errorf("%s: RPCs went to %v, want %v", tc.name, got, tc.want)
					break
				}
			}
		})
	}
}

// The threshold of a Backend that says none is the default.
func TestBackendPanicsWhereItSays(t *testing.T) {
	quarter, never := 25, 0
	for _, tc := range []struct {
		threshold *int
		want      int // endpoints that RPCs go to when one of three is well
	}{{nil, 3}, {&quarter, 1}, {&never, 1}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, h2.Limits{})
			b := balancing(w, store.LoadBalancing{Policy: store.LeastRequest, PanicThreshold: tc.threshold})
			b.Endpoints[0].SetCondition(balance.Ejected, true)
			b.Endpoints[2].SetCondition(balance.Unhealthy, true)
			b.Refresh()
			if got := reached(b, 300, unkeyed); len(got) != tc.want {
				t.Errorf("RPCs went to %v, want %d endpoints", got, tc.want)
			}
		})
	}
}

// A Backend that cannot be put in force can be asked everything.
func TestBackendWithoutSpecHasNoPolicy(t *testing.T) {
	w := newWorld(t, h2.Limits{})
	spec := to("x", "a:1")
	spec.Spec.Protocol = store.ProtocolTLS
	spec.Spec.TLS = &store.BackendTLS{CAFile: "/there/is/no/such/file"}
	plan := w.Prepare(&store.Set{Backends: []*store.Backend{spec}})
	w.Commit(plan)()
	b := w.Backend(spec.Key())
	b.Refresh()
	if e, _ := b.Pick(balance.Request{}); e != nil || b.Timed() || b.HashOn() != nil || b.Affinity() != nil {
		t.Errorf("picked %v, timed %v, hashes on %v", e, b.Timed(), b.HashOn())
	}
	if e, i := b.Stick("x", nil); e != nil || i >= 0 {
		t.Errorf("a token leads to %v", e)
	}
}

func TestBackendBringsAClientBackToItsEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		affinity := store.LoadBalancing{Policy: store.LeastRequest, SessionAffinity: &store.SessionAffinity{Cookie: "sid", TTL: store.Duration(time.Hour)}}
		b := balancing(w, affinity)
		if got := *b.Affinity(); got != (Affinity{Cookie: "sid", TTL: time.Hour}) {
			t.Errorf("affinity %+v", got)
		}
		seen := make(map[string]bool)
		for i, e := range b.Endpoints {
			token := b.Token(e)
			if seen[token] || len(token) != 20 || strings.Contains(token, e.Address()) {
				t.Errorf("token %q of %s", token, e.Address())
			}
			seen[token] = true
			for range 20 { // however busy it is
				if got, at := b.Stick(token, nil); got != e || at != i {
					t.Fatalf("the token of %s leads to %v", e.Address(), got)
				}
			}
			if e.Active() != 20 {
				t.Errorf("%d streams on %s, want 20", e.Active(), e.Address())
			}
		}
		token := b.Token(b.Endpoints[1])
		for _, unknown := range []string{"", "x", token + "x", token[1:], strings.Repeat("A", 10000)} {
			if e, _ := b.Stick(unknown, nil); e != nil {
				t.Errorf("token %.30q leads to %s", unknown, e.Address())
			}
		}
		if e, _ := b.Stick(token, balance.Mask(nil).With(1)); e != nil {
			t.Error("an RPC came back to the endpoint that it has tried")
		}
		b.Endpoints[1].SetCondition(balance.Ejected, true)
		if e, _ := b.Stick(token, nil); e != nil {
			t.Error("an ejected endpoint took an RPC for its token")
		}
		b.Endpoints[1].SetCondition(balance.Ejected, false)

		// The next table knows the token, and so does another gateway; drained, it is of no use.
		next := to("x", "c:1", "b:1")
		next.Spec.LoadBalancing = affinity
		w.put(next)
		after := w.Backend(next.Key())
		if e, i := after.Stick(token, nil); e == nil || e.Address() != "b:1" || i != 1 {
			t.Errorf("in the next table the token leads to %v", e)
		}
		if got := after.Token(b.Endpoints[0]); got != "" {
			t.Errorf("an endpoint that is gone has token %q", got)
		}
		drained := to("x", "c:1", "b:1")
		drained.Spec.Endpoints[1].Weight = 0
		drained.Spec.LoadBalancing = affinity
		w.Commit(w.Prepare(&store.Set{Backends: []*store.Backend{drained}}))()
		if e, _ := w.Backend(drained.Key()).Stick(token, nil); e != nil {
			t.Error("a drained endpoint took an RPC for its token")
		}
		if n := testing.AllocsPerRun(100, func() {
			if e, _ := after.Stick(token, nil); e != nil {
				_ = after.Token(e)
				e.Release()
			}
		}); n != 0 {
			t.Errorf("%v allocations for a token, want none", n)
		}
	})
	if a, b := tokenOf("default/x", "a:1"), tokenOf("default/y", "a:1"); a == b {
		t.Error("two backends know an address by one token")
	}
}
