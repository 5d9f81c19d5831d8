package upstream

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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

// TestPoolLeavesWhatCannotBePutInForce: everything else is, and what cannot stays
// as it was, until its files are there.
func TestPoolLeavesWhatCannotBePutInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		w.host("a:1", manners{})
		dir := t.TempDir()
		ca := filepath.Join(dir, "ca.pem")
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(ca, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		secured := func(name, address string) *store.Backend {
			b := to(name, address)
			b.Spec.Protocol, b.Spec.TLS = store.ProtocolTLS, &store.BackendTLS{CAFile: ca}
			return b
		}
		weighted := func(weight uint32) *store.Backend {
			b := to("x", "a:1")
			b.Spec.Endpoints[0].Weight = weight
			return b
		}
		old := w.put(weighted(1), to("y", "c:1"))[0]
		write("rubbish")
		specs := []*store.Backend{weighted(9), secured("y", "d:1"), secured("z", "e:1")}
		commit := func() *Plan {
			plan := w.Prepare(&store.Set{Backends: specs})
			w.Commit(plan)()
			return plan
		}
		for range 2 { // the second time nothing is new
			commit()
			if old.Weight() != 9 {
				t.Errorf("the weight is %d, want 9: the fault is another backend's", old.Weight())
			}
			for _, key := range []string{"default/y", "default/z"} {
				if err := w.Problem(key); err == nil || err.Error() != "reading tls.caFile: no certificate in PEM form" {
					t.Errorf("%s: the problem is %v", key, err)
				}
			}
			if len(w.Problems()) != 2 {
				t.Errorf("problems %v, want two", w.Problems())
			}
			if y := w.Backend("default/y"); y.Problem != nil || len(y.Endpoints) != 1 || y.Endpoints[0].Address() != "c:1" {
				t.Errorf("y is %+v, want what it was", y)
			}
			if z := w.Backend("default/z"); z.Problem == nil || len(z.Endpoints) != 0 {
				t.Errorf("z is %+v, want none with the problem", z)
			}
		}
		if err := os.Remove(ca); err != nil {
			t.Fatal(err)
		}
		commit()
		if err := w.Problem("default/z"); err == nil || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("without the file the problem is %v", err)
		}
		authority := newAuthority(t)
		write(string(authority.pem))
		if plan := commit(); len(plan.Changed) != 2 || len(w.Problems()) != 0 {
			t.Errorf("with its file back: changed %v, problems %v", plan.Changed, w.Problems())
		}
		if y := w.Backend("default/y"); len(y.Endpoints) != 1 || y.Endpoints[0].Address() != "d:1" {
			t.Errorf("y is %+v, want what is declared", y)
		}
		before := w.Backend("default/z")
		if plan := commit(); len(plan.Changed) != 0 || w.Backend("default/z") != before {
			t.Errorf("with nothing changed: changed %v", plan.Changed)
		}
		other := newAuthority(t)
		write(string(other.pem))
		if plan := commit(); len(plan.Changed) != 2 || w.Backend("default/z").Endpoints[0] == before.Endpoints[0] {
			t.Errorf("with another authority: changed %v, want new endpoints", plan.Changed)
		}
	})
}

// What has been read once is good for what else of a backend changes: nobody is kept
// from draining it because a file has gone since.
func TestPoolChangesABackendWhoseFileHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		ca := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(ca, []byte(newAuthority(t).pem), 0o600); err != nil {
			t.Fatal(err)
		}
		weighted := func(weight uint32) *store.Backend {
			b := to("x", "a:1")
			b.Spec.Protocol, b.Spec.TLS = store.ProtocolTLS, &store.BackendTLS{CAFile: ca}
			b.Spec.Endpoints[0].Weight = weight
			return b
		}
		e := w.put(weighted(1))[0]
		if err := os.Remove(ca); err != nil {
			t.Fatal(err)
		}
		drained := weighted(0)
		if err := w.Check(drained); err != nil {
			t.Errorf("refused: %v", err)
		}
		w.Commit(w.Prepare(&store.Set{Backends: []*store.Backend{drained}}))()
		if e.Weight() != 0 {
			t.Errorf("the weight is %d, want 0 as declared", e.Weight())
		}
		if err := w.Problem("default/x"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the problem is %v, want the file that has gone", err)
		}
		elsewhere := weighted(1)
		elsewhere.Spec.TLS.ServerName = "other"
		if err := w.Check(elsewhere); err == nil {
			t.Error("other settings of TLS are taken without the file")
		}
	})
}

func TestCheckNamesTheField(t *testing.T) {
	rubbish := filepath.Join(t.TempDir(), "rubbish.pem")
	if err := os.WriteFile(rubbish, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := func(name, text string) string {
		name = filepath.Join(filepath.Dir(rubbish), name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	whole := newAuthority(t).pem
	empty, half := file("empty.pem", ""), file("half.pem", whole+whole[:len(whole)/2])
	long := file("long.pem", strings.Repeat(whole, maxFile/len(whole)+1))
	pipe := filepath.Join(filepath.Dir(rubbish), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name        string
		tls         *store.BackendTLS
		field, want string
	}{
		{"none", nil, "", ""},
		{"only a name", &store.BackendTLS{ServerName: "x"}, "", ""},
		{"authorities in the text", &store.BackendTLS{CA: "rubbish"}, "tls.ca", "no certificate in PEM form"},
		{"authorities in a file", &store.BackendTLS{CAFile: rubbish}, "tls.caFile", "no certificate in PEM form"},
		{"no such file", &store.BackendTLS{CAFile: "/nowhere/ca.pem"}, "tls.caFile", "open /nowhere/ca.pem"},
		{"an empty file", &store.BackendTLS{CAFile: empty}, "tls.caFile", "no certificate in PEM form"},
		{"half of a bundle", &store.BackendTLS{CAFile: half}, "tls.caFile", "cut short"},
		{"a pipe", &store.BackendTLS{CAFile: pipe}, "tls.caFile", "it is no regular file"},
		{"a device", &store.BackendTLS{CAFile: "/dev/zero"}, "tls.caFile", "it is no regular file"},
		{"too long", &store.BackendTLS{CAFile: long}, "tls.caFile", "more than 1048576 bytes"},
		{"no certificate", &store.BackendTLS{CertFile: "/nowhere/c.pem", KeyFile: rubbish}, "tls.certFile", "open /nowhere/c.pem"},
		{"no key", &store.BackendTLS{CertFile: rubbish, KeyFile: "/nowhere/k.pem"}, "tls.keyFile", "open /nowhere/k.pem"},
		{"no pair", &store.BackendTLS{CertFile: rubbish, KeyFile: rubbish}, "tls.certFile", strconv.Quote(rubbish) + " with key"},
	}
	for _, test := range tests {
		b := to("x", "a:1")
		b.Spec.Protocol, b.Spec.TLS = store.ProtocolTLS, test.tls
		err := new(Pool).Check(b)
		switch {
		case err == nil && test.field != "" || err != nil && (err.Field != test.field || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %s: %s", test.name, err, test.field, test.want)
		}
	}
}

// TestPoolPlansOnlyWhatChanged compares with a pool that begins anew.
func TestPoolPlansOnlyWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		rng := rand.New(rand.NewPCG(3, 5))
		var set []*store.Backend
		for round := range 200 {
			before := make(map[string]*Backend)
			for _, b := range set {
				before[b.Key()] = w.Backend(b.Key())
			}
			var next []*store.Backend
			stays := make(map[string]bool)
			for _, b := range set {
				switch rng.IntN(6) {
				case 0: // gone
				case 1:
					next = append(next, to(b.Name, fmt.Sprintf("host%d:1", rng.IntN(4)), "common:1"))
				default:
					next = append(next, b)
					stays[b.Key()] = true
				}
			}
			next = append(next, to(fmt.Sprint("b", round), "a:1"))
			if rng.IntN(2) == 0 {
				rng.Shuffle(len(next), func(i, j int) { next[i], next[j] = next[j], next[i] })
			}
			set = next
			w.Commit(w.Prepare(&store.Set{Backends: set}))()
			endpoints := 0
			for _, spec := range set {
				b := w.Backend(spec.Key())
				if b == nil || len(b.Endpoints) != len(spec.Spec.Endpoints) {
					t.Fatalf("round %d: %s is %+v", round, spec.Key(), b)
				}
				for i, e := range b.Endpoints {
					if endpoints++; e.Address() != spec.Spec.Endpoints[i].Address || w.endpoints[e.id] != e || w.leaving[e.id] != nil {
						t.Fatalf("round %d: %s has endpoint %s at %d", round, spec.Key(), e.Address(), i)
					}
				}
				if stays[spec.Key()] && b != before[spec.Key()] {
					t.Fatalf("round %d: %s was made anew", round, spec.Key())
				}
			}
			if len(w.endpoints) != endpoints || len(w.known) != len(set) {
				t.Fatalf("round %d: %d endpoints of %d backends, want %d of %d", round, len(w.endpoints), len(w.known), endpoints, len(set))
			}
		}
	})
}

// TestPoolHasOneEndpointForOneAddress, even if a set has it twice, as no store lets
// through.
func TestPoolHasOneEndpointForOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		if list := w.put(to("x", "a:1", "a:1")); list[0] != list[1] {
			t.Error("one address has two endpoints")
		}
	})
}

func TestBackendCountsWhoTakesRPCs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		spec := to("x", "a:1", "b:1", "c:1")
		spec.Spec.Endpoints[2].Weight = 0
		w.put(spec)
		b := w.Backend("default/x")
		b.Endpoints[1].SetUsable(false)
		if weighted, usable := b.Takers(); weighted != 2 || usable != 1 {
			t.Errorf("%d with weight and %d usable, want 2 and 1", weighted, usable)
		}
		for _, up := range []bool{true, false} {
			b.Endpoints[0].SetUsable(up)
			if weighted, usable := b.Able(); !weighted || usable != up {
				t.Errorf("with an endpoint up %v: weight %v, usable %v", up, weighted, usable)
			}
		}
		if !b.Others(balance.Mask(nil).With(0)) || b.Others(balance.Mask(nil).With(0).With(1)) {
			t.Error("an endpoint without weight counts among the others")
		}
	})
}

func TestBackendPicksUntilNoneIsLeft(t *testing.T) {
	for _, policy := range []store.Policy{store.LeastRequest, store.RoundRobin} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, h2.Limits{})
			b := to("x", "a:1", "b:1", "c:1", "d:1")
			b.Spec.LoadBalancing.Policy = policy
			w.Commit(w.Prepare(&store.Set{Backends: []*store.Backend{b}}))()
			x := w.Backend("default/x")
			x.Endpoints[1].SetUsable(false)
			var avoid balance.Mask
			var order []string
			for x.Others(avoid) {
				e, i := x.Pick(balance.Request{Avoid: avoid})
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
			if e, i := x.Pick(balance.Request{Avoid: avoid}); e != nil || i != -1 {
				t.Errorf("%s: picked %v, number %d, of nothing", policy, e, i)
			}
		})
	}
}
