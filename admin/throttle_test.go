package admin

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

// guess makes one attempt that fails, and tells how long it waited.
func (t *throttle) guess(ctx context.Context, address, account string) (time.Duration, error) {
	began := t.now()
	a, err := t.admit(ctx, address, account)
	if err == nil {
		a.end(false)
	}
	return t.now().Sub(began), err
}

// One address guesses as often as it can.
func TestThrottleSlowsAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(time.Now)
		began := time.Now()
		made := map[time.Duration]int{}
		for time.Since(began) < 24*time.Hour {
			_, err := th.guess(t.Context(), "192.0.2.1", "alice")
			var early *throttledError
			if errors.As(err, &early) {
				time.Sleep(early.wait)
				continue
			}
			for _, span := range []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour} {
				if time.Since(began) < span {
					made[span]++
				}
			}
		}
		t.Logf("guesses of one address: %v", made)
		for span, most := range map[time.Duration]int{time.Second: 5, time.Minute: 11, time.Hour: 75, 24 * time.Hour: 1460} {
			if made[span] > most {
				t.Errorf("%d guesses in %v, limit %d", made[span], span, most)
			}
		}
		if made[24*time.Hour] < 1000 {
			t.Errorf("%d guesses in a day: who mistypes would be locked out", made[24*time.Hour])
		}
	})
}

// Guesses that are made at once count like those made in turn.
func TestThrottleCountsAttemptsUnderWay(t *testing.T) {
	th := newThrottle(newClock().Now)
	admitted := 0
	for range 100 {
		if _, _, err := th.begin(throttledAddress("192.0.2.1"), "alice"); err == nil {
			admitted++
		}
	}
	if admitted != addressFree {
		t.Errorf("%d attempts at once, want %d", admitted, addressFree)
	}
}

// Ten thousand addresses guess the password of one account; its owner, from another
// address, waits no longer than the bound, and comes in.
func TestThrottleLocksNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSiteIn(t)
		s.addAccount(t, "alice", adminv1.Role_ROLE_ADMIN)
		th := s.throttle
		for i := range 10_000 {
			a, _, err := th.begin(throttledAddress(fmt.Sprintf("10.0.%d.%d", i/256, i%256)), "alice")
			if err != nil {
				t.Fatalf("guess %d: %v", i, err)
			}
			a.end(false)
		}
		owner := s.browser()
		owner.address = "203.0.113.9"
		began := time.Now()
		if err := owner.signIn(t.Context(), "alice", goodPassword); err != nil {
			t.Fatalf("the owner was refused: %v", err)
		}
		if waited := time.Since(began); waited < accountMaxWait || waited > accountMaxWait+time.Second {
			t.Errorf("the owner waited %v, want %v", waited, accountMaxWait)
		}
		// By the socket there is no wait.
		began = time.Now()
		if err := s.local().signIn(t.Context(), "alice", goodPassword); err != nil || time.Since(began) > time.Second {
			t.Errorf("by the socket: %v after %v", err, time.Since(began))
		}
		// Other accounts are not concerned: 4,096 slots, so not for sure, but this seed
		// would have to be one in a thousand.
		began = time.Now()
		if _, err := th.guess(t.Context(), "203.0.113.10", "bob"); err != nil || time.Since(began) > accountMaxWait {
			t.Errorf("another account: %v after %v", err, time.Since(began))
		}
	})
}

// An address that is refused is refused at once, without a hash, and comes in again.
func TestThrottleRefusesWithoutHashing(t *testing.T) {
	s := newSite(t)
	s.addAccount(t, "alice", adminv1.Role_ROLE_ADMIN)
	hashes := 0
	derive := s.passwords.derive
	s.passwords.derive = func(password, salt []byte, c passwordCost) []byte {
		hashes++
		return derive(password, salt, c)
	}
	c := s.program("")
	for range addressFree {
		if err := c.signIn(t.Context(), "alice", "wrong"); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Fatal(err)
		}
	}
	s.wantRefused(t, "too early", func() error { return c.signIn(t.Context(), "alice", goodPassword) },
		connect.CodeResourceExhausted, "too many failed sign-ins from 192.0.2.1; try again in 1s, or use the command line on the machine itself")
	var refusal *connect.Error
	if !errors.As(c.signIn(t.Context(), "alice", goodPassword), &refusal) || refusal.Meta().Get("Retry-After") != "1" {
		t.Errorf("Retry-After: %q, want 1", refusal.Meta().Get("Retry-After"))
	}
	if hashes != addressFree {
		t.Errorf("%d hashes, want %d", hashes, addressFree)
	}
	other := s.program("")
	other.address = "192.0.2.2"
	if err := other.signIn(t.Context(), "alice", goodPassword); err != nil {
		t.Errorf("from another address: %v", err)
	}
	s.clock.advance(time.Second)
	if err := c.signIn(t.Context(), "alice", goodPassword); err != nil {
		t.Errorf("from the same, later: %v", err)
	}
}

// Somebody with an account cannot sign in to it to be forgiven for guessing at
// another.
func TestThrottleForgivesNoOtherFailures(t *testing.T) {
	c := newClock()
	th := newThrottle(c.Now)
	failed := 0
	for range 20 {
		if _, err := th.guess(t.Context(), "192.0.2.1", "alice"); err == nil {
			failed++
		}
		if a, err := th.admit(t.Context(), "192.0.2.1", "mallory"); err == nil {
			a.end(true)
		}
	}
	if failed > addressFree {
		t.Errorf("%d guesses, limit %d", failed, addressFree)
	}
}

// Who gets it right in the end does not wait for what went before; a failure beside it
// stays one.
func TestThrottleTakesBackWhatSucceeds(t *testing.T) {
	c := newClock()
	th := newThrottle(c.Now)
	begin := func() *attempt {
		t.Helper()
		a, _, err := th.begin(throttledAddress("192.0.2.1"), "alice")
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for range addressFree - 1 {
		begin().end(false)
	}
	for range 3 {
		begin().end(true)
	}
	c.advance(addressForgive + time.Second) // one failure less: two attempts at once
	good := begin()
	bad := begin()
	bad.end(false)
	good.end(true)
	if _, _, err := th.begin(throttledAddress("192.0.2.1"), "alice"); err == nil {
		t.Error("a failure was forgotten because of a success beside it")
	}
}

func TestThrottleTakesANetworkForAnAddress(t *testing.T) {
	for _, tc := range []struct{ one, other string }{
		{"2001:db8::1", "2001:db8::ffff:1"},
		{"192.0.2.1", "::ffff:192.0.2.1"},
		{"fe80::1%eth0", "fe80::2%eth1"},
		{"unknown", ""},
	} {
		if throttledAddress(tc.one) != throttledAddress(tc.other) {
			t.Errorf("%s and %s are two addresses, want one", tc.one, tc.other)
		}
	}
	if throttledAddress("2001:db8:0:1::1") == throttledAddress("2001:db8:0:2::1") {
		t.Error("two networks are one address")
	}
}

// A million names and addresses do not grow it.
func TestThrottleHasABound(t *testing.T) {
	th := newThrottle(newClock().Now)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	try := func(from, to int) {
		for i := from; i < to; i++ {
			a, _, err := th.begin(throttledAddress(fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255)), fmt.Sprintf("name-%d", i))
			if err != nil {
				t.Fatal(err)
			}
			a.end(false)
		}
	}
	try(0, throttledAddresses)
	before := heap()
	try(throttledAddresses, 200_000)
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("grew by %d bytes", grown)
	}
	if th.recent.Len() != throttledAddresses || len(th.addresses) != throttledAddresses {
		t.Errorf("%d addresses are known, limit %d", th.recent.Len(), throttledAddresses)
	}
	runtime.KeepAlive(th)
}

// What waits is bounded, and gives its place back when its client goes away.
func TestThrottleBoundsWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(time.Now)
		const name = "alice"
		th.accounts[th.slotOf(name)].add(20, time.Now(), accountForgive)
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan error)
		for i := range maxWaiting {
			go func() {
				_, err := th.admit(ctx, fmt.Sprintf("10.1.%d.%d", i/256, i%256), name)
				ended <- err
			}()
		}
		synctest.Wait()
		if _, err := th.admit(ctx, "192.0.2.1", name); err == nil || !strings.HasPrefix(err.Error(), "too many sign-ins at this moment") {
			t.Errorf("one more was answered with %v", err)
		}
		leave()
		for range maxWaiting {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
		}
		if th.waiting != 0 {
			t.Errorf("%d still wait", th.waiting)
		}
	})
}
