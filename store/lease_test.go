package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const halfMinute = Duration(30 * time.Second)

// leased is a store with Backends that take registrations, and its leases.
func leased(t *testing.T, wall *testClock) (*Store, *Leases) {
	t.Helper()
	s := openStore(t, Options{Now: wall.Now})
	applyText(t, s, takesText("cart", "{maxEndpoints: 1000, maxLease: 10m}")+"---\n"+backendText("closed", ""))
	return s, NewLeases(s, LeaseOptions{Now: wall.Now})
}

// announce registers an address with the Backend cart.
func announce(t testing.TB, l *Leases, address string) ID {
	t.Helper()
	o, err := l.Register(t.Context(), RegistrationSpec{Backend: "cart", Address: address, Weight: 1, Lease: halfMinute}, "", Author{Actor: "cart"})
	if err != nil {
		t.Fatal(err)
	}
	return o.ID
}

// look does what Run does once.
func (l *Leases) look(t testing.TB) {
	t.Helper()
	l.follow(l.store.Snapshot())
	l.end(t.Context())
}

func TestLeasesEndWhatIsNotRenewed(t *testing.T) {
	wall := newTestClock()
	s, l := leased(t, wall)
	renewed, silent := announce(t, l, "10.0.0.1:1"), announce(t, l, "10.0.0.2:1")
	for range 3 {
		wall.pass(20 * time.Second)
		if err := l.Renew(renewed); err != nil {
			t.Fatal(err)
		}
		l.look(t)
	}
	if _, there := s.Snapshot().Get(silent); there {
		t.Error("what nobody renews is registered after a minute")
	}
	mustGet(t, s, renewed)
	if err := l.Renew(silent); !errors.Is(err, ErrNoLease) {
		t.Errorf("renewing what is over: %v", err)
	}
	changes, err := s.History(silent, 0, 1)
	if err != nil || len(changes) != 1 || changes[0].Action != ActionDelete || changes[0].After.Author != (Author{Actor: "lease", Reason: "the lease was over"}) {
		t.Errorf("history %+v, %v", changes, err)
	}
	if got, want := l.Expires(renewed), wall.Now().Add(30*time.Second); !got.Equal(want) {
		t.Errorf("the other one is over at %v, want %v", got, want)
	}
	wall.pass(30*time.Second - time.Millisecond)
	l.look(t)
	mustGet(t, s, renewed)
	wall.pass(time.Millisecond)
	l.look(t)
	if s.Snapshot().Len(RegistrationKind) != 0 || !l.Expires(renewed).IsZero() {
		t.Error("a lease does not end when it is over")
	}
}

func TestLeasesWriteNothingToRenew(t *testing.T) {
	wall := newTestClock()
	s, l := leased(t, wall)
	id := announce(t, l, "10.0.0.1:1")
	before := s.Snapshot()
	for range 100 {
		wall.pass(10 * time.Second)
		if err := l.Renew(id); err != nil {
			t.Fatal(err)
		}
		if again := announce(t, l, "10.0.0.1:1"); again != id { // as who has lost the connection does
			t.Fatalf("registered anew as %s", again)
		}
		l.look(t)
	}
	if s.Snapshot() != before {
		t.Errorf("%d changes by renewing", s.Snapshot().Seq()-before.Seq())
	}
	if n := testing.AllocsPerRun(100, func() { _ = l.Renew(id) }); n > 10 {
		t.Errorf("a renewal allocates %v times", n)
	}
	// What changes is written, once.
	o, err := l.Register(t.Context(), RegistrationSpec{Backend: "cart", Address: "10.0.0.1:1", Weight: 5, Zone: "a", Lease: halfMinute}, "default", Author{})
	if err != nil || s.Snapshot().Seq() != before.Seq()+1 || o.Resource.(*Registration).Spec.Weight != 5 || o.Created != mustGet(t, s, id).Created {
		t.Errorf("registered anew with another weight: %+v, %v", o, err)
	}
}

func TestLeasesEndTogetherInOneTransaction(t *testing.T) {
	wall := newTestClock()
	s, l := leased(t, wall)
	for i := range 120 {
		announce(t, l, fmt.Sprintf("10.0.%d.%d:1", i/100, i%100))
	}
	before := s.Snapshot()
	wall.pass(time.Minute)
	l.look(t)
	if got := s.Snapshot().Seq() - before.Seq(); got != 120 || s.Snapshot().Len(RegistrationKind) != 0 {
		t.Errorf("%d changes, %d registrations are left", got, s.Snapshot().Len(RegistrationKind))
	}
	changes, err := s.History(ID{}, 0, 120)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if c.After.Revision != changes[0].After.Revision {
			t.Fatalf("%s ended at %s, and %s at %s: these are two transactions", c.ID, c.After.Revision, changes[0].ID, changes[0].After.Revision)
		}
	}
	select {
	case <-before.superseded:
	default:
		t.Fatal("nothing was published")
	}
}

func TestLeasesBeginAnewAfterARestart(t *testing.T) {
	wall := newTestClock()
	s, l := leased(t, wall)
	id := announce(t, l, "10.0.0.1:1")
	wall.pass(29 * time.Second)
	s = reopen(t, s)
	l = NewLeases(s, LeaseOptions{Now: wall.Now})
	wall.pass(29 * time.Second)
	l.look(t)
	mustGet(t, s, id)
	wall.pass(time.Second)
	l.look(t)
	if s.Snapshot().Len(RegistrationKind) != 0 {
		t.Error("after a restart a lease does not end")
	}
}

func TestLeasesKeepWhatIsHeld(t *testing.T) {
	wall := newTestClock()
	s, l := leased(t, wall)
	id := announce(t, l, "10.0.0.1:1")
	first, second := l.Holds(id), l.Holds(id)
	for range 2 {
		if !l.Expires(id).IsZero() {
			t.Error("what is held expires")
		}
		wall.pass(time.Hour)
		l.look(t)
		mustGet(t, s, id)
		first()
		first() // the second time says nothing
	}
	second()
	if got, want := l.Expires(id), wall.Now().Add(30*time.Second); !got.Equal(want) {
		t.Errorf("released, it expires at %v, want %v", got, want)
	}
	wall.pass(30 * time.Second)
	l.look(t)
	if s.Snapshot().Len(RegistrationKind) != 0 {
		t.Error("what was held is kept for ever")
	}
	l.Holds(id)() // there is none
	// Whoever deregisters does so whoever holds it; the release that follows means nothing.
	id = announce(t, l, "10.0.0.1:1")
	release := l.Holds(id)
	if err := l.Deregister(t.Context(), id, Author{}); err != nil {
		t.Fatal(err)
	}
	l.look(t)
	id = announce(t, l, "10.0.0.1:1")
	release()
	if got, want := l.Expires(id), wall.Now().Add(30*time.Second); !got.Equal(want) {
		t.Errorf("the next one expires at %v, want %v", got, want)
	}
}

func TestLeasesDeregister(t *testing.T) {
	wall := newTestClock()
	s, l := leased(t, wall)
	id := announce(t, l, "10.0.0.1:1")
	by := Author{Actor: "cart", Reason: "it ends"}
	if err := l.Deregister(t.Context(), id, by); err != nil || s.Snapshot().Len(RegistrationKind) != 0 {
		t.Errorf("deregistered: %v", err)
	}
	if changes, err := s.History(id, 0, 1); err != nil || changes[0].After.Author != by {
		t.Errorf("history %+v, %v", changes, err)
	}
	var notFound *NotFoundError
	for _, gone := range []ID{id, {BackendKind, "default", "cart"}} {
		if err := l.Deregister(t.Context(), gone, by); !errors.As(err, &notFound) || notFound.ID != gone {
			t.Errorf("%s: error %v", gone, err)
		}
		if err := l.Renew(gone); !errors.Is(err, ErrNoLease) {
			t.Errorf("renew %s: error %v", gone, err)
		}
	}
	mustGet(t, s, ID{BackendKind, "default", "cart"})
}

// A Backend that is gone, or takes no registrations any more, has them end with their
// lease, and one that allows less shortens it.
func TestLeasesHeedTheBackend(t *testing.T) {
	for name, text := range map[string]string{"gone": "", "closed": backendText("cart", "")} {
		wall := newTestClock()
		s, l := leased(t, wall)
		id := announce(t, l, "10.0.0.1:1")
		if text == "" {
			mustWrite(t, s, Txn{Ops: []Op{{ID: ID{BackendKind, "", "cart"}, Delete: true}}})
		} else {
			applyText(t, s, text)
		}
		wall.pass(time.Second)
		if err := l.Renew(id); !errors.Is(err, ErrNoLease) {
			t.Errorf("%s: renewed, error %v", name, err)
		}
		l.look(t)
		mustGet(t, s, id)
		wall.pass(29 * time.Second)
		l.look(t)
		if s.Snapshot().Len(RegistrationKind) != 0 {
			t.Errorf("%s: the registration stays", name)
		}
	}
	wall := newTestClock()
	s, l := leased(t, wall)
	id := announce(t, l, "10.0.0.1:1")
	applyText(t, s, takesText("cart", "{maxLease: 5s}"))
	if err := l.Renew(id); err != nil || !l.Expires(id).Equal(wall.Now().Add(5*time.Second)) {
		t.Errorf("renewed, it expires at %v, %v", l.Expires(id), err)
	}
}

func TestLeasesRefuse(t *testing.T) {
	wall := newTestClock()
	s, l := leased(t, wall)
	applyText(t, s, takesText("one", "{maxEndpoints: 1}"))
	l.opts.OwnAddresses = func() []netip.AddrPort {
		return []netip.AddrPort{netip.MustParseAddrPort("[::]:8080"), netip.MustParseAddrPort("10.1.1.1:8080"), netip.MustParseAddrPort("127.0.0.1:8081"), netip.MustParseAddrPort("[fe80::1]:8080"), netip.MustParseAddrPort("[::1]:8083")}
	}
	if _, err := l.Register(t.Context(), RegistrationSpec{Backend: "one", Address: "10.0.0.1:1", Weight: 1, Lease: halfMinute}, "", Author{}); err != nil {
		t.Fatal(err)
	}
	before := s.Snapshot()
	const self = "is this gateway itself, its port for RPCs or the one of operators: no endpoint may be there"
	for _, tt := range []struct {
		name    string
		address string
		change  func(*RegistrationSpec)
		want    string
	}{
		{"no address", "", nil, `address: "": want host:port`},
		{"no port", "10.0.0.2", nil, "want a port after the address"},
		{"port 0", "10.0.0.2:0", nil, "want a port from 1 to 65535"},
		{"a URL", "http://10.0.0.2:1", nil, "want a name or an IP address as the host"},
		{"every address", "[::]:1", nil, "want the address of one machine: this one stands for every address of its own"},
		{"several machines", "224.0.0.1:1", nil, "want the address of one machine, not of several"},
		{"a lease of nothing", "10.0.0.2:1", func(s *RegistrationSpec) { s.Lease = 0 }, "lease: 0s is out of range, want 1s to 10m"},
		{"a lease before now", "10.0.0.2:1", func(s *RegistrationSpec) { s.Lease = -halfMinute }, "lease: -30s is out of range, want 1s to 10m"},
		{"a lease of a year", "10.0.0.2:1", func(s *RegistrationSpec) { s.Lease = Duration(365 * 24 * time.Hour) }, "lease: 8760h0m0s is out of range, want 1s to 10m"},
		{"no such Backend", "10.0.0.2:1", func(s *RegistrationSpec) { s.Backend = "none" }, "Backend default/none: there is no such object"},
		{"a Backend of no name", "10.0.0.2:1", func(s *RegistrationSpec) { s.Backend = "a b" }, "Backend default/a b: there is no such object"},
		{"a Backend without registration", "10.0.0.2:1", func(s *RegistrationSpec) { s.Backend = "closed" }, "backend: Backend default/closed takes no registrations: it has no spec.registration"},
		{"too many", "10.0.0.2:1", func(s *RegistrationSpec) { s.Backend = "one" }, "Backend default/one has 1 registered endpoints, limit 1 (spec.registration.maxEndpoints)"},
		{"too heavy", "10.0.0.2:1", func(s *RegistrationSpec) { s.Weight = maxWeight + 1 }, "weight: 1000001 is out of range, want 0 to 1000000"},
		{"a zone of two lines", "10.0.0.2:1", func(s *RegistrationSpec) { s.Zone = "a\nb" }, "want printable characters"},
		{"the gateway", "10.1.1.1:8080", nil, `address: "10.1.1.1:8080" ` + self},
		{"the gateway, otherwise written", "[::ffff:10.1.1.1]:8080", nil, self},
		{"the gateway by loopback", "127.0.0.9:8080", nil, self},
		{"the gateway by IPv6", "[::1]:8080", nil, self},
		{"the gateway by name", "LOCALHOST:8080", nil, self},
		{"the gateway by another name", "ip6-localhost:8080", nil, self},
		{"the gateway by a name below localhost", "foo.localhost:8080", nil, self},
		{"the gateway by an address with a zone", "[fe80::1%eth0]:8080", nil, self},
		{"the gateway's other port", "127.0.0.1:8081", nil, self},
		{"the gateway's other port by name", "localhost:8081", nil, self},
		{"the gateway's port of IPv6 by name", "localhost:8083", nil, self},
	} {
		spec := RegistrationSpec{Backend: "cart", Address: tt.address, Weight: 1, Lease: halfMinute}
		if tt.change != nil {
			tt.change(&spec)
		}
		if _, err := l.Register(t.Context(), spec, "", Author{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %s", tt.name, err, tt.want)
		}
	}
	if s.Snapshot() != before {
		t.Error("something was written")
	}
	for _, address := range []string{"10.1.1.1:8081", "10.1.1.2:8080", "127.0.0.1:8082", "localhost:1", "gateway.internal:8080", "[::1]:8081", "127.0.0.2:8081", "127.0.0.1:8083"} {
		announce(t, l, address)
	}
	if _, err := l.Register(t.Context(), RegistrationSpec{Backend: "cart", Address: "10.0.0.2:1", Lease: halfMinute}, "A B", Author{}); err == nil {
		t.Error("a namespace that can be none is taken")
	}
}

// Run wakes when the next lease is over, and not for nothing.
func TestLeasesRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		applyText(t, s, takesText("cart", "{}"))
		l := NewLeases(s, LeaseOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- l.Run(ctx) }()
		long := announce(t, l, "10.0.0.1:1")
		o, err := l.Register(t.Context(), RegistrationSpec{Backend: "cart", Address: "10.0.0.2:1", Lease: Duration(time.Second)}, "", Author{})
		if err != nil {
			t.Fatal(err)
		}
		release := l.Holds(o.ID)
		gone := func(id ID) bool {
			synctest.Wait()
			_, there := s.Snapshot().Get(id)
			return !there
		}
		time.Sleep(10 * time.Second)
		if gone(o.ID) || gone(long) {
			t.Error("something ends that is held, or not over")
		}
		release()
		time.Sleep(999 * time.Millisecond)
		if gone(o.ID) {
			t.Error("the lease ends early")
		}
		time.Sleep(2 * time.Millisecond)
		if !gone(o.ID) {
			t.Error("the lease does not end in time")
		}
		time.Sleep(19 * time.Second)
		if !gone(long) {
			t.Error("the long lease does not end in time")
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		ran = make(chan error, 1)
		go func() { ran <- l.Run(t.Context()) }()
		synctest.Wait()
		closeStore(t, s)
		if err := <-ran; !errors.Is(err, ErrClosed) {
			t.Errorf("the store is closed, and Run returns %v", err)
		}
	})
}

// Whoever registers while leases end is registered, whatever comes first.
func TestLeasesAreRegisteredWhileOthersEnd(t *testing.T) {
	wall := newTestClock()
	s, l := leased(t, wall)
	const deregistered = 1
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			l.follow(s.Snapshot())
			l.end(ctx)
		}
	})
	for i := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 5))
			for range 40 {
				id := announce(t, l, fmt.Sprintf("10.0.0.%d:1", i))
				until := l.Expires(id)
				_, there := s.Snapshot().Get(id)
				if !there && wall.Now().Before(until) && i != deregistered {
					t.Errorf("%s is registered until %v and not there", id, until)
				}
				l.Holds(id)()
				if rng.IntN(2) == 0 {
					wall.pass(time.Duration(rng.IntN(40)) * time.Second)
				}
				if err := l.Renew(id); err != nil && !errors.Is(err, ErrNoLease) {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		defer cancel()
		for range 100 {
			wall.pass(time.Second)
			id := ID{RegistrationKind, "default", RegistrationName("cart", fmt.Sprintf("10.0.0.%d:1", deregistered))}
			var notFound *NotFoundError
			if err := l.Deregister(ctx, id, Author{}); err != nil && !errors.As(err, &notFound) {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	wall.pass(time.Hour)
	l.look(t)
	if n := s.Snapshot().Len(RegistrationKind); n != 0 || len(l.leases) != 0 {
		t.Errorf("%d registrations and %d leases are left", n, len(l.leases))
	}
}

// What cannot be ended, for lack of room say, is tried again, and may be renewed
// meanwhile; what is being ended may not.
func TestLeasesThatCannotEndAreTriedAgain(t *testing.T) {
	wall := newTestClock()
	var l *Leases
	var id ID
	var refuse, ending bool
	var renewed error
	s := openStore(t, Options{Now: wall.Now, Check: func(*Set, []ID) Faults {
		if ending {
			renewed = l.Renew(id)
		}
		if refuse {
			return Faults{{Message: "no room"}}
		}
		return nil
	}})
	applyText(t, s, takesText("cart", "{}"))
	l = NewLeases(s, LeaseOptions{Now: wall.Now})
	id = announce(t, l, "10.0.0.1:1")
	wall.pass(time.Minute)
	refuse, ending = true, true
	if next := l.end(t.Context()); !next.Equal(wall.Now().Add(leaseRetry)) {
		t.Errorf("what cannot be ended is looked at again at %v, want in %v", next, leaseRetry)
	}
	if !errors.Is(renewed, ErrNoLease) {
		t.Errorf("renewed while it ends: %v", renewed)
	}
	mustGet(t, s, id)
	if err := l.Renew(id); err != nil {
		t.Errorf("renewed when it could not be ended: %v", err)
	}
	wall.pass(time.Minute)
	refuse, renewed = false, nil
	l.look(t)
	if s.Snapshot().Len(RegistrationKind) != 0 || !errors.Is(renewed, ErrNoLease) {
		t.Errorf("it is not ended the second time, or was renewed meanwhile: %v", renewed)
	}
}
