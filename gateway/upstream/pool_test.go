package upstream

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/store"
)

// TestPoolKeepsEndpointsThatAreTheSame: what an endpoint is, and not the table that
// mentions it, decides.
func TestPoolKeepsEndpointsThatAreTheSame(t *testing.T) {
	tests := []struct {
		name   string
		change func(b *store.Backend)
		same   bool
	}{
		{"nothing", func(*store.Backend) {}, true},
		{"weight", func(b *store.Backend) { b.Spec.Endpoints[0].Weight = 7 }, true},
		{"policy", func(b *store.Backend) { b.Spec.LoadBalancing.Policy = store.RoundRobin }, true},
		{"limits", func(b *store.Backend) { b.Spec.Connection = store.Connection{MaxStreams: 3, MaxConnections: 4} }, true},
		{"another endpoint beside it", func(b *store.Backend) {
			b.Spec.Endpoints = append(b.Spec.Endpoints, store.Endpoint{Address: "b:1", Weight: 1})
		}, true},
		{"address", func(b *store.Backend) { b.Spec.Endpoints[0].Address = "a:2" }, false},
		{"name", func(b *store.Backend) { b.Name = "y" }, false},
		{"tls", func(b *store.Backend) { b.Spec.Protocol = store.ProtocolTLS }, false},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, h2.Limits{})
			w.host("a:1", manners{})
			before := w.put(to("x", "a:1"))[0]
			open(before, 1)[0].wantOpen(t)
			changed := to("x", "a:1")
			test.change(changed)
			after := w.put(changed)[0]
			if same := after == before; same != test.same {
				t.Errorf("%s: the same endpoint %v, want %v", test.name, same, test.same)
			}
			if after.Weight() != changed.Spec.Endpoints[0].Weight {
				t.Errorf("%s: weight %d, want %d", test.name, after.Weight(), changed.Spec.Endpoints[0].Weight)
			}
			if test.same && after.Connections() != 1 {
				t.Errorf("%s: %d connections are left of one", test.name, after.Connections())
			}
		})
	}
}

func TestPoolReportsAllFaultsAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		w.host("a:1", manners{})
		old := w.put(to("x", "a:1"))[0]
		one, two, three := to("x", "a:1", "b:1"), to("y", "c:1"), to("z", "d:1")
		rubbish := filepath.Join(t.TempDir(), "rubbish.pem")
		if err := os.WriteFile(rubbish, []byte("no certificate"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, b := range []*store.Backend{two, three} {
			b.Spec.Protocol = store.ProtocolTLS
		}
		one.Spec.Endpoints[0].Weight = 9
		two.Spec.TLS = &store.BackendTLS{CAFile: rubbish}
		three.Spec.TLS = &store.BackendTLS{CertFile: rubbish, KeyFile: rubbish}
		_, err := w.Prepare(&store.Set{Backends: []*store.Backend{one, two, three}})
		if err == nil {
			t.Fatal("no error")
		}
		for _, want := range []string{`backend "default/y": reading tls.ca: no certificate in PEM form`, `backend "default/z": reading tls.certFile "` + rubbish + `"`} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error is %q, want %q in it", err, want)
			}
		}
		if old.Weight() != 1 {
			t.Errorf("the weight is %d, of a set that was not put in force", old.Weight())
		}
		n := 0
		w.Endpoints(func(*Endpoint) { n++ })
		if n != 1 {
			t.Errorf("%d endpoints, want the one that was", n)
		}
		open(old, 1)[0].wantOpen(t)
	})
}

func TestBackendPicksUntilNoneIsLeft(t *testing.T) {
	for _, policy := range []store.Policy{store.LeastRequest, store.RoundRobin} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, h2.Limits{})
			b := to("x", "a:1", "b:1", "c:1", "d:1")
			b.Spec.LoadBalancing.Policy = policy
			plan, err := w.Prepare(&store.Set{Backends: []*store.Backend{b}})
			if err != nil {
				t.Fatal(err)
			}
			w.Commit(plan)()
			x := plan.Backends["default/x"]
			x.Endpoints[1].SetUsable(false)
			var avoid balance.Mask
			var order []string
			for x.Others(avoid) {
				e, i := x.Pick(avoid)
				if e == nil || x.Endpoints[i] != e || e.Active() != 1 {
					t.Fatalf("%s: picked %v, number %d", policy, e, i)
				}
				order = append(order, e.Address())
				avoid = avoid.With(i)
				e.Release()
			}
			if len(order) != 4 || order[3] != "b:1" {
				t.Errorf("%s: the order is %v, want all, and that which is down last", policy, order)
			}
			if e, i := x.Pick(avoid); e != nil || i != -1 {
				t.Errorf("%s: picked %v, number %d, of nothing", policy, e, i)
			}
		})
	}
}
