package admin

import (
	"container/list"
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"net/netip"
	"sync"
	"time"
)

// The pace of guessing. Failures are forgiven one by one. An address that goes on
// failing is refused for longer and longer, up to a guess a minute. An account of
// which many addresses guess only makes each attempt wait, never refuses one: the
// person whose account it is comes in, from an address without failures, a few
// seconds later than otherwise.
const (
	addressFree    = 5           // failures before an address is refused for a while
	addressForgive = time.Minute // for one failure
	addressWait    = time.Second // the first while; each failure doubles it
	addressMaxWait = time.Minute

	accountFree    = 10 // failures before attempts are delayed
	accountForgive = 10 * time.Second
	accountDelay   = 250 * time.Millisecond // the first delay; each failure doubles it
	accountMaxWait = 4 * time.Second

	throttledAddresses = 8192 // known at a time; the one that was quiet longest is forgotten
	throttledAccounts  = 4096 // slots that all names share: names that meet in one wait together
	maxWaiting         = 1024 // attempts that wait, of all addresses
)

// throttle slows down those who guess passwords. Its memory has a bound, whatever
// names and addresses are tried.
type throttle struct {
	now  func() time.Time
	seed maphash.Seed // so that nobody can choose a name to meet another's slot

	mu        sync.Mutex // guards the fields below
	addresses map[netip.Addr]*list.Element
	recent    *list.List // of *addressFailures, the one that tried last in front
	accounts  [throttledAccounts]failures
	waiting   int
}

// addressFailures are those of one address, or of one network of IPv6: whoever has
// an address there has all of them.
type addressFailures struct {
	address netip.Addr
	failures
	until time.Time // refused until then
}

// failures counts those that are not forgiven.
type failures struct {
	count float64
	since time.Time // of the count
}

// add counts n failures more, after those forgiven since, and returns how many it
// are now.
func (f *failures) add(n float64, now time.Time, forgive time.Duration) float64 {
	f.count = max(0, f.count-float64(now.Sub(f.since))/float64(forgive))
	f.count, f.since = max(0, f.count+n), now
	return f.count
}

// doubled is the first wait for the first failure that is not free, doubled for
// each that follows.
func doubled(first, limit time.Duration, count float64, free int) time.Duration {
	over := math.Ceil(count) - float64(free)
	if over <= 0 {
		return 0
	}
	return time.Duration(min(float64(limit), float64(first)*math.Pow(2, over-1)))
}

func newThrottle(now func() time.Time) *throttle {
	return &throttle{
		now: now, seed: maphash.MakeSeed(),
		addresses: map[netip.Addr]*list.Element{}, recent: list.New(),
	}
}

// throttledError says that it is too early for another attempt.
type throttledError struct {
	address string
	wait    time.Duration // zero when that cannot be said
}

func (e *throttledError) Error() string {
	if e.wait == 0 {
		return "too many sign-ins at this moment; try again, or use the command line on the machine itself"
	}
	return fmt.Sprintf("too many failed sign-ins from %s; try again in %s, or use the command line on the machine itself",
		e.address, max(time.Second, e.wait.Round(time.Second)))
}

// attempt is one sign-in under way. The zero attempt is nobody's concern.
type attempt struct {
	throttle      *throttle
	from          *addressFailures
	slot          *failures
	before, until time.Time // from.until before the attempt, and because of it
}

// admit returns when the attempt may be made, or an error when it may not. The
// attempt counts as failed until it has ended well, so that attempts made at once
// count like those made in turn. The caller ends it.
func (t *throttle) admit(ctx context.Context, address, account string) (*attempt, error) {
	a, delay, err := t.begin(throttledAddress(address), account)
	if err != nil || delay == 0 {
		return a, err
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return a, nil
	case <-ctx.Done():
		a.end(false)
		return nil, ctx.Err()
	}
}

func (t *throttle) begin(address netip.Addr, account string) (*attempt, time.Duration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	from := t.failuresOf(address)
	if now.Before(from.until) {
		return nil, 0, &throttledError{address.String(), from.until.Sub(now)}
	}
	if t.waiting >= maxWaiting {
		return nil, 0, &throttledError{}
	}
	t.waiting++
	a := &attempt{throttle: t, from: from, before: from.until}
	a.until = now.Add(doubled(addressWait, addressMaxWait, from.add(1, now, addressForgive), addressFree-1))
	from.until = a.until
	a.slot = &t.accounts[t.slotOf(account)]
	return a, doubled(accountDelay, accountMaxWait, a.slot.add(1, now, accountForgive), accountFree), nil
}

func (t *throttle) slotOf(account string) uint64 {
	return maphash.String(t.seed, account) % throttledAccounts
}

// end takes back what the attempt counted when it was no failure.
func (a *attempt) end(succeeded bool) {
	if a.throttle == nil {
		return
	}
	a.throttle.mu.Lock()
	defer a.throttle.mu.Unlock()
	a.throttle.waiting--
	if !succeeded {
		return
	}
	now := a.throttle.now()
	a.from.add(-1, now, addressForgive)
	a.slot.add(-1, now, accountForgive)
	if a.from.until.Equal(a.until) { // and no later failure has set another
		a.from.until = a.before
	}
}

// failuresOf finds the failures of an address, and forgets those of another when
// there are too many.
func (t *throttle) failuresOf(address netip.Addr) *addressFailures {
	if e, ok := t.addresses[address]; ok {
		t.recent.MoveToFront(e)
		return e.Value.(*addressFailures)
	}
	if t.recent.Len() >= throttledAddresses {
		last := t.recent.Remove(t.recent.Back()).(*addressFailures)
		delete(t.addresses, last.address)
	}
	f := &addressFailures{address: address}
	t.addresses[address] = t.recent.PushFront(f)
	return f
}

// throttledAddress is what counts as one address: of IPv6 a /64, which is the least
// that a host gets. Those that cannot be read count as one.
func throttledAddress(address string) netip.Addr {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Addr{}
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip
	}
	network, _ := ip.Prefix(64) // fails for IPv4 only
	return network.Addr()
}
