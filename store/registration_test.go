package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// registration is what Leases would write of a process.
func registration(backend, address string) *Registration {
	return &Registration{
		Meta: Meta{Namespace: "default", Name: RegistrationName(backend, address)},
		Spec: RegistrationSpec{Backend: backend, Address: address, Weight: 1, Lease: Duration(30 * time.Second)},
	}
}

// takesText is a Backend that takes registrations.
func takesText(name, registering string) string {
	return "apiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: " + name + "}\nspec: {registration: " + registering + "}\n"
}

func TestRegistrationNameIsValidAndUnique(t *testing.T) {
	seen := map[string]string{}
	for _, backend := range []string{"cart", "cart-10", "a.b", strings.Repeat("a.", 126) + "a", ""} {
		for _, address := range []string{"10.0.0.5:50051", "0.0.0.5:50051", "[2001:db8::1]:80", "[fe80::1%eth0]:80", "cart_1.internal:80", "-:1", "", "É:1"} {
			name := RegistrationName(backend, address)
			if problem := checkName(name); problem != "" {
				t.Errorf("%s at %s: %q: %s", backend, address, name, problem)
			}
			if other := seen[name]; other != "" {
				t.Errorf("%s at %s and %s are both %s", backend, address, other, name)
			}
			seen[name] = backend + " at " + address
		}
	}
	if got, want := RegistrationName("cart", "[2001:DB8:0::1]:80"), RegistrationName("cart", "[2001:db8::1]:80"); got != want {
		t.Errorf("one address has two names: %s and %s", got, want)
	}
	if got := RegistrationName("cart", "10.0.0.5:50051"); !strings.HasPrefix(got, "cart-10-0-0-5-50051-") {
		t.Errorf("nobody recognises %s", got)
	}
}

func TestParseRefusesRegistrations(t *testing.T) {
	r := registration("cart", "10.0.0.5:50051")
	manifest, err := r.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	_, faults := Parse("f", manifest)
	if want := "f:1:44: kind: a Registration is made by sluice backend register, and by no manifest"; faults.Error() != want {
		t.Errorf("got %v\nwant %s", faults, want)
	}
	checkDecode(t, r)
}

func TestEffectiveHasRegisteredEndpoints(t *testing.T) {
	s := openStore(t, Options{})
	static := strings.Replace(takesText("cart", "{maxEndpoints: 3}"), "spec: {", "spec: {endpoints: [{address: '10.0.0.1:1', weight: 7}, {address: '[2001:DB8::1]:1'}], ", 1)
	applyText(t, s, static+"---\n"+takesText("other", "{}")+"---\n"+backendText("closed", ""))
	id := ID{BackendKind, "default", "cart"}
	endpoints := func(key string) (list []string) {
		for _, e := range s.Snapshot().Effective().Backend(key).Spec.Endpoints {
			list = append(list, fmt.Sprintf("%s%s=%d", e.Source, e.Address, e.Weight))
		}
		return list
	}
	declared := []string{"10.0.0.1:1=7", "[2001:DB8::1]:1=1"}
	if got := endpoints("default/cart"); !slices.Equal(got, declared) {
		t.Errorf("nobody is registered: %v", got)
	}
	if b := s.Snapshot().Effective().Backend("default/other"); b != mustGet(t, s, ID{BackendKind, "default", "other"}).Resource {
		t.Error("a Backend without registrations is not the declared one")
	}
	third := registration("cart", "10.0.0.3:1")
	third.Spec.Weight, third.Spec.Zone, third.Spec.Version = 9, "eu-1a", "v2"
	for _, r := range []*Registration{third, registration("cart", "10.0.0.1:1"), registration("cart", "[2001:db8::1]:1"), registration("other", "10.0.0.3:1")} {
		mustWrite(t, s, Txn{Ops: []Op{{Apply: r}}})
	}
	for range 2 {
		if got, want := endpoints("default/cart"), append(declared, "registered10.0.0.3:1=9"); !slices.Equal(got, want) {
			t.Errorf("endpoints %v, want %v", got, want)
		}
		if e := s.Snapshot().Effective().Backend("default/cart").Spec.Endpoints[2]; e.Zone != "eu-1a" || e.Version != "v2" {
			t.Errorf("registered is %+v", e)
		}
		s = reopen(t, s)
	}

	// Pointers stay while nothing changes.
	before := s.Snapshot().Effective()
	mustWrite(t, s, Txn{Ops: []Op{{Apply: registration("other", "10.0.0.4:1")}}})
	applyText(t, s, splitText("r", "b=1"))
	after := s.Snapshot().Effective()
	if before.Backend("default/cart") != after.Backend("default/cart") || before.Backend("default/other") == after.Backend("default/other") {
		t.Error("the Backend that another process has announced itself to is the same, or the other is not")
	}

	// A Backend that takes fewer, or none, or is gone, has no use for them; they are kept.
	applyText(t, s, strings.Replace(static, "maxEndpoints: 3", "maxEndpoints: 1", 1))
	if got := endpoints("default/cart"); len(got) > 3 {
		t.Errorf("one may be registered, and endpoints are %v", got)
	}
	applyText(t, s, strings.Replace(static, "registration: {maxEndpoints: 3}", "accepts: [GRPC]", 1))
	if got := endpoints("default/cart"); !slices.Equal(got, declared) {
		t.Errorf("it takes none, and endpoints are %v", got)
	}
	mustWrite(t, s, Txn{Ops: []Op{{ID: id, Delete: true}}})
	if n := s.Snapshot().Len(RegistrationKind); n != 5 {
		t.Errorf("%d registrations are kept, want 5", n)
	}
	applyText(t, s, static)
	if got, want := endpoints("default/cart"), append(declared, "registered10.0.0.3:1=9"); !slices.Equal(got, want) {
		t.Errorf("it is back: endpoints %v, want %v", got, want)
	}
}

func TestStoreChecksRegistrations(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, takesText("cart", "{maxEndpoints: 2, maxLease: 1m}")+"---\n"+backendText("closed", ""))
	mustWrite(t, s, Txn{Ops: []Op{{Apply: registration("cart", "10.0.0.1:1")}}})
	with := func(change func(*Registration)) *Registration {
		r := registration("cart", "10.0.0.2:1")
		change(r)
		return r
	}
	for _, tt := range []struct {
		name string
		r    *Registration
		want string
	}{
		{"no such Backend", registration("none", "10.0.0.2:1"), "Backend default/none: there is no such object"},
		{"it takes none", registration("closed", "10.0.0.2:1"), "backend: Backend default/closed takes no registrations: it has no spec.registration"},
		{"no address", registration("cart", "10.0.0.2"), `address: "10.0.0.2": want a port after the address, and IPv6 in brackets, as in [::1]:50051`},
		{"port 0", registration("cart", "10.0.0.2:0"), `address: "10.0.0.2:0": want a port from 1 to 65535`},
		{"every address", registration("cart", "0.0.0.0:1"), `address: "0.0.0.0:1": want the address of one machine: this one stands for every address of its own`},
		{"another's name", with(func(r *Registration) { r.Name = RegistrationName("cart", "10.0.0.1:1") }), "is not the name of a registration of"},
		{"an address in capitals", with(func(r *Registration) { r.Spec.Address, r.Name = "A:1", RegistrationName("cart", "A:1") }), "is not the name of a registration of"},
		{"too heavy", with(func(r *Registration) { r.Spec.Weight = maxWeight + 1 }), "weight: 1000001 is out of range, want 0 to 1000000"},
		{"no zone", with(func(r *Registration) { r.Spec.Zone = "a\nb" }), `zone: "a\nb": want printable characters`},
		{"a long version", with(func(r *Registration) { r.Spec.Version = strings.Repeat("v", 64) }), "64 bytes, limit 63"},
		{"no lease", with(func(r *Registration) { r.Spec.Lease = 0 }), "lease: 0s is out of range, want 1s to 1m"},
		{"a lease that is too long", with(func(r *Registration) { r.Spec.Lease = Duration(61 * time.Second) }), "lease: 1m1s is out of range, want 1s to 1m"},
	} {
		_, err := s.Write(t.Context(), Txn{Ops: []Op{{Apply: tt.r}}})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %s", tt.name, err, tt.want)
		}
	}
	_, err := s.Write(t.Context(), Txn{Ops: []Op{{Apply: registration("cart", "10.0.0.2:1")}, {Apply: registration("cart", "10.0.0.3:1")}}})
	if want := "backend: Backend default/cart has 2 registered endpoints, limit 2 (spec.registration.maxEndpoints)"; err == nil || err.Error() != want {
		t.Errorf("one too many: error %v, want %s", err, want)
	}
	mustWrite(t, s, Txn{Ops: []Op{{Apply: registration("cart", "10.0.0.2:1")}}})
	mustWrite(t, s, Txn{Ops: []Op{{Apply: with(func(r *Registration) { r.Spec.Weight = 5 })}}}) // one of the two
}

// Registrations are in the history, as everything is; but nobody goes back to who was
// there, and a backup does not decide who is.
func TestRegistrationsAreNotBroughtBack(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	applyText(t, s, takesText("cart", "{}"))
	mustWrite(t, s, Txn{Ops: []Op{{Apply: registration("cart", "10.0.0.1:1")}}})
	gone := mustGet(t, s, ResourceID(registration("cart", "10.0.0.1:1")))
	path, then := backUp(t, s), wall.Now()
	wall.pass(time.Hour)
	mustWrite(t, s, Txn{Ops: []Op{{ID: gone.ID, Delete: true}, {Apply: registration("cart", "10.0.0.2:1")}}})
	if changes, err := s.History(gone.ID, 0, 0); err != nil || len(changes) != 2 || changes[0].Action != ActionDelete || changes[1].Action != ActionCreate {
		t.Errorf("history %+v, %v", changes, err)
	}
	if result, err := s.Restore(t.Context(), path, Author{}, false); err != nil || len(result.Changes) != 0 {
		t.Errorf("restored %+v, %v", result, err)
	}
	objects, err := s.At(then)
	if err != nil || len(objects) != 2 {
		t.Fatalf("then there were %d, %v", len(objects), err)
	}
	if ops, _ := s.Snapshot().OpsTo(objects); len(ops) != 0 {
		t.Errorf("to go back there is to do %+v", ops)
	}
	if _, err := s.Write(t.Context(), Txn{Ops: []Op{{Exact: gone}}}); err == nil || !strings.Contains(err.Error(), "is not brought back") {
		t.Errorf("rolled back: %v", err)
	}
}

// Another node's registrations are taken in as strictly as a process's own word, but
// for what only the Backend knows: it may come later.
func TestMergeTakesRegistrations(t *testing.T) {
	a, b := openStore(t, Options{}), openStore(t, Options{})
	applyText(t, a, takesText("cart", "{}"))
	mustWrite(t, a, Txn{Ops: []Op{{Apply: registration("cart", "10.0.0.1:1")}}})
	exchange(t, a, b)
	if got := b.Snapshot().Effective().Backend("default/cart").Spec.Endpoints; len(got) != 1 || got[0].Source != SourceRegistered {
		t.Errorf("at the other node %+v", got)
	}
	if a.Snapshot().Digest() != b.Snapshot().Digest() {
		t.Error("the nodes do not agree")
	}
	bad := mustGet(t, a, ResourceID(registration("cart", "10.0.0.1:1"))).copy()
	spoilt := *bad.Resource.(*Registration)
	spoilt.Spec.Address, spoilt.Spec.Lease = "0.0.0.0:1", Duration(25*time.Hour)
	bad.Resource = &spoilt
	c := openStore(t, Options{})
	result, err := c.Merge(t.Context(), []*Object{bad})
	var faults Faults
	if err != nil || len(result.Refused) != 1 || !errors.As(result.Refused[0].Err, &faults) || len(faults) != 3 {
		t.Errorf("merged %+v, %v", result, err)
	}
}

// Processes that come and go all day do not push out of the history what people did.
func TestHistoryKeepsWhatPeopleDid(t *testing.T) {
	s := openStore(t, Options{limits: &limits{changes: 100, bytes: 1 << 20, ofObject: 50, recent: 20, objectBytes: 1 << 20, tail: 1 << 20, batch: 1 << 20, page: 1 << 20, descriptors: 1 << 20}})
	applyText(t, s, takesText("cart", "{}"))
	applyText(t, s, splitText("shop", "v1=1", "v2=1"))
	route := ID{GRPCRouteKind, "default", "shop"}
	for i := range 40 {
		mustWrite(t, s, Txn{Ops: []Op{splitOp(route, SplitEdit{Shares: []Share{{"v1", 1 + uint32(i)}, {"v2", 1}}})}})
	}
	for i := range 100 {
		r := registration("cart", fmt.Sprintf("10.0.0.%d:1", i))
		mustWrite(t, s, Txn{Ops: []Op{{Apply: r}}})
		mustWrite(t, s, Txn{Ops: []Op{{ID: ResourceID(r), Delete: true}}})
	}
	for range 2 {
		changes, err := s.History(route, 0, 100)
		if err != nil || len(changes) != 41 {
			t.Errorf("of 41 changes of the route %d are kept, %v", len(changes), err)
		}
		if all, err := s.History(ID{}, 0, 1000); err != nil || len(all) != 100 {
			t.Errorf("%d changes are kept in all, want 100; %v", len(all), err)
		}
		s = reopen(t, s)
	}
	// Where there are no registrations to give way, the oldest does.
	for i := range 90 {
		applyText(t, s, backendText(fmt.Sprintf("b%d", i), ""))
	}
	if all, err := s.History(ID{}, 0, 1000); err != nil || len(all) != 100 {
		t.Errorf("%d changes are kept in all, want 100; %v", len(all), err)
	}
}
