package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway/h2"
	"sluice/store"
)

// byName is a backend whose endpoints are what a name stands for, beside those given.
func byName(name string, refresh time.Duration, addresses ...string) *store.Backend {
	b := to(name, addresses...)
	b.Spec.DNS = &store.DNS{Name: name + ".test", Port: 1, Refresh: store.Duration(refresh), MaxEndpoints: 5}
	return b
}

// names answers look-ups in the way that the test wants at the moment.
type names struct {
	mu     sync.Mutex // guards the fields below
	answer func(d *store.DNS) (finding, error)
	asked  []time.Time
}

func (n *names) lookUp(_ context.Context, d *store.DNS, _ []found) (finding, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, time.Now())
	return n.answer(d)
}

// say has the next look-ups answered with addresses, none for a name that is gone.
func (n *names) say(keep time.Duration, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer = func(d *store.DNS) (finding, error) {
		if len(addresses) == 0 {
			return finding{}, errAbsent
		}
		f := finding{keep: keep}
		for _, a := range addresses {
			f.found = append(f.found, found{a, d.Name, 1})
		}
		return f, nil
	}
}

// times are when look-ups were made, since the beginning.
func (n *names) times(since time.Time) (list []time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, at := range n.asked {
		list = append(list, at.Sub(since))
	}
	return list
}

// newNamedWorld is a world with names of its own.
func newNamedWorld(t *testing.T) (*world, *names) {
	w, n := newWorld(t, h2.Limits{}), new(names)
	w.discovery.resolver = n
	return w, n
}

// news tells whether a look-up has found other endpoints since the last time.
func (w *world) news() bool {
	synctest.Wait()
	select {
	case <-w.News():
		return true
	default:
		return false
	}
}

// again puts the same set in force, as the gateway does with news.
func (w *world) again(backends ...*store.Backend) []*Endpoint {
	w.t.Helper()
	return w.put(backends...)
}

func addressesOf(list []*Endpoint) string {
	var out []string
	for _, e := range list {
		out = append(out, e.Address())
	}
	return strings.Join(out, " ")
}

// wantDiscovery fails unless so many addresses are known, with a problem that has the text.
func (w *world) wantDiscovery(addresses int, problem string) {
	w.t.Helper()
	synctest.Wait()
	d, ok := w.Discovery("default/x")
	if !ok || d.Addresses != addresses || !strings.Contains(d.Problem, problem) || problem == "" && d.Problem != "" {
		w.t.Errorf("discovery %+v, %v, want %d addresses and problem %q", d, ok, addresses, problem)
	}
}

// TestDiscoveryKeepsTheLastGoodAnswer, whatever comes after it, and the endpoints with
// their connections.
func TestDiscoveryKeepsTheLastGoodAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := newNamedWorld(t)
		w.host("10.0.0.1:1", manners{})
		w.Own = func(a netip.AddrPort) bool { return a == netip.MustParseAddrPort("10.0.0.9:1") }
		x := byName("x", 10*time.Second)
		n.say(0, "10.0.0.1:1")
		if list := w.put(x); len(list) != 0 {
			t.Errorf("before any answer there are endpoints %s", addressesOf(list))
		}
		if !w.news() {
			t.Fatal("nobody heard of the first answer")
		}
		first := w.again(x)
		if addressesOf(first) != "10.0.0.1:1" {
			t.Fatalf("endpoints %s", addressesOf(first))
		}
		open(first[0], 1)[0].wantOpen(t)
		w.wantDiscovery(1, "")
		for _, bad := range []struct {
			name    string
			answer  func(*store.DNS) (finding, error)
			problem string
		}{
			{"no such name", func(*store.DNS) (finding, error) { return finding{}, errAbsent }, `looking up "x.test": no such name; the last good answer is kept`},
			{"a server that fails", func(*store.DNS) (finding, error) { return finding{}, errServfail }, `looking up "x.test": the server answers SERVFAIL; the last good answer is kept`},
			{"nothing", func(*store.DNS) (finding, error) { return finding{}, nil }, "no address is left"},
			{"the gateway itself", func(*store.DNS) (finding, error) {
				return finding{found: []found{{"10.0.0.9:1", "x", 1}}}, nil
			}, `no address is left; "10.0.0.9:1" is the gateway itself: left out; the last good answer is kept`},
		} {
			n.mu.Lock()
			n.answer = bad.answer
			n.mu.Unlock()
			time.Sleep(12 * time.Second)
			w.wantDiscovery(1, bad.problem)
			if w.news() {
				t.Errorf("%s: news", bad.name)
			}
			if list := w.again(x); len(list) != 1 || list[0] != first[0] || list[0].Connections() != 1 {
				t.Errorf("%s: endpoints %s", bad.name, addressesOf(list))
			}
		}
		n.say(0, "10.0.0.2:1", "10.0.0.1:1")
		time.Sleep(12 * time.Second)
		if !w.news() {
			t.Error("nobody heard of the next good answer")
		}
		w.wantDiscovery(2, "")
		if list := w.again(x); addressesOf(list) != "10.0.0.1:1 10.0.0.2:1" || list[0] != first[0] || list[0].Connections() != 1 {
			t.Errorf("endpoints %s: not the one that has been there", addressesOf(list))
		}
		for _, text := range []string{"dns look-up not as it should be", "dns answers again", "endpoints found by dns"} {
			if !strings.Contains(w.log.String(), text) {
				t.Errorf("the log does not say %q:\n%s", text, w.log)
			}
		}
		if good, bad := w.LookUps(); good < 2 || bad < 4 {
			t.Errorf("%d look-ups are counted as good, %d as bad", good, bad)
		}
	})
}

// TestDiscoveryAsksAsOftenAsRecordsLive: no more often than refresh says, and not for ever
// later.
func TestDiscoveryAsksAsOftenAsRecordsLive(t *testing.T) {
	const refresh = 30 * time.Second
	for _, test := range []struct {
		name     string
		keep     time.Duration
		min, max time.Duration
	}{
		{"none", 0, refresh, refresh * 11 / 10},
		{"less than refresh", time.Second, refresh, refresh * 11 / 10},
		{"a minute", time.Minute, time.Minute, 66 * time.Second},
		{"a year", 365 * 24 * time.Hour, time.Hour, 66 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			w, n := newNamedWorld(t)
			n.say(test.keep, "10.0.0.1:1")
			begun := time.Now()
			w.put(byName("x", refresh))
			time.Sleep(4 * test.max)
			var last time.Duration
			times := n.times(begun)
			for i, at := range times[1:] {
				if gap := at - last; gap < test.min || gap > test.max {
					t.Errorf("%s: look-up %d came %v after the one before, want %v to %v", test.name, i+2, gap, test.min, test.max)
				}
				last = at
			}
			if len(times) < 4 {
				t.Errorf("%s: %d look-ups", test.name, len(times))
			}
			if d, _ := w.Discovery("default/x"); d.At.Sub(begun) != last || d.Next.Sub(d.At) < test.min {
				t.Errorf("%s: %+v, the last look-up was %v after the beginning", test.name, d, last)
			}
		})
	}
}

// TestDiscoveryTriesAgainWithPauses that grow up to refresh.
func TestDiscoveryTriesAgainWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := newNamedWorld(t)
		n.say(0)
		begun := time.Now()
		w.put(byName("x", 20*time.Second))
		time.Sleep(5 * time.Minute)
		times, last := n.times(begun), time.Duration(0)
		for i, at := range times[1:] {
			want := min(time.Second<<min(i, 10), 20*time.Second)
			if gap := at - last; gap < want/2 || gap > want {
				t.Errorf("try %d came %v after the one before, want %v to %v", i+2, gap, want/2, want)
			}
			last = at
		}
		if n := strings.Count(w.log.String(), "not as it should be"); n != 1 {
			t.Errorf("it was logged %d times", n)
		}
		if b := w.Backend("default/x"); len(b.Endpoints) != 0 || b.Problem != nil {
			t.Errorf("the backend has %d endpoints, and the problem %v", len(b.Endpoints), b.Problem)
		}
	})
}

// TestDiscoveryFlaps: endpoints come and go with the answers, and each comes back as it
// was.
func TestDiscoveryFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := newNamedWorld(t)
		w.host("10.0.0.1:1", manners{})
		w.host("10.0.0.2:1", manners{})
		x, y := byName("x", time.Second), to("y", "10.0.0.1:1")
		n.say(0)
		w.put(y, x)
		other := w.Backend("default/y").Endpoints[0]
		open(other, 1)[0].wantOpen(t)
		for i := range 20 {
			want := "10.0.0.1:1"
			if i%2 == 1 {
				want = "10.0.0.1:1 10.0.0.2:1"
			}
			n.say(0, strings.Fields(want)...)
			time.Sleep(1200 * time.Millisecond)
			if !w.news() {
				t.Fatalf("change %d: nobody heard of it", i)
			}
			w.again(y, x)
			if got := addressesOf(w.Backend("default/x").Endpoints); got != want {
				t.Errorf("change %d: endpoints %s, want %s", i, got, want)
			}
			if b := w.Backend("default/y"); b.Endpoints[0] != other || other.Connections() != 1 {
				t.Errorf("change %d has disturbed another backend", i)
			}
		}
		time.Sleep(time.Minute)
		if w.news() {
			t.Error("news without a change")
		}
	})
}

// TestDiscoveryIsBounded: of ten thousand addresses as many are taken as may be.
func TestDiscoveryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := newNamedWorld(t)
		n.answer = func(*store.DNS) (f finding, err error) {
			for i := range 10_000 {
				f.found = append(f.found, found{fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), "x", 1})
			}
			return f, nil
		}
		x := byName("x", time.Minute)
		w.put(x)
		w.wantDiscovery(5, "10000 addresses came, the limit is 5: the others are left out")
		if list := w.again(x); addressesOf(list) != "10.0.0.0:1 10.0.0.100:1 10.0.0.101:1 10.0.0.102:1 10.0.0.103:1" {
			t.Errorf("endpoints %s", addressesOf(list))
		}
	})
}

// TestDiscoveryFollowsItsDeclaration: another name, none any more, endpoints that are
// declared as well, drains, server names.
func TestDiscoveryFollowsItsDeclaration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := newNamedWorld(t)
		n.say(time.Hour, "10.0.0.1:1", "10.0.0.2:1")
		x := byName("x", time.Second, "10.0.0.2:1=7", "b:1")
		x.Spec.Endpoints[0] = store.Endpoint{Address: "10.0.0.2:1", Weight: 7}
		w.put(x)
		synctest.Wait()
		list := w.again(x)
		if addressesOf(list) != "10.0.0.2:1 b:1 10.0.0.1:1" || list[0].Weight() != 7 || list[2].Weight() != 1 {
			t.Errorf("endpoints %s: what is declared counts once, and as declared", addressesOf(list))
		}

		n.say(time.Hour) // the other name does not exist
		moved := *x
		moved.Spec.DNS = &store.DNS{Name: "y.test", Port: 1, Refresh: store.Duration(time.Second), MaxEndpoints: 5}
		w.put(&moved)
		w.wantDiscovery(2, `looking up "y.test": no such name`)
		if list := w.again(&moved); addressesOf(list) != "10.0.0.2:1 b:1 10.0.0.1:1" {
			t.Errorf("endpoints %s: those of the name before are kept until the new one is answered", addressesOf(list))
		}
		n.say(time.Hour, "10.0.0.3:1")
		time.Sleep(3 * time.Second)
		if list := w.again(&moved); addressesOf(list) != "10.0.0.2:1 b:1 10.0.0.3:1" {
			t.Errorf("endpoints %s", addressesOf(list))
		}

		drained := moved
		drained.Spec.Drains = []store.Drain{{Endpoint: "10.0.0.3:1", Since: time.Now(), Grace: store.Duration(time.Minute)}}
		list = w.put(&drained)
		if list[2].Address() != "10.0.0.3:1" || list[2].Weight() != 0 {
			t.Errorf("endpoint %s has weight %d after its drain", list[2].Address(), list[2].Weight())
		}
		if len(w.graces) != 1 {
			t.Errorf("%d endpoints have a grace, want 1", len(w.graces))
		}

		secured := moved
		secured.Spec.Protocol = store.ProtocolTLS
		list = w.put(&secured)
		if got := list[2].settings.tls.ServerName; got != "y.test" {
			t.Errorf("the certificate of what was found is expected for %q, want the name", got)
		}
		if got := list[1].settings.tls.ServerName; got != "" {
			t.Errorf("and that of what is declared for %q", got)
		}

		late := to("z", "a:1", "b:1")
		w.put(late)
		n.say(time.Hour)
		named := *late
		named.Spec.Endpoints, named.Spec.DNS = nil, moved.Spec.DNS
		if list := w.put(&named); addressesOf(list) != "a:1 b:1" {
			t.Errorf("endpoints %s: those that were declared are kept until a name is answered", addressesOf(list))
		}
		n.say(time.Hour, "10.0.0.3:1")
		time.Sleep(3 * time.Second)
		if list := w.again(&named); addressesOf(list) != "10.0.0.3:1" {
			t.Errorf("endpoints %s", addressesOf(list))
		}
		w.put(&moved)

		static := moved
		static.Spec.DNS = nil
		if list := w.put(&static); addressesOf(list) != "10.0.0.2:1 b:1" {
			t.Errorf("without dns: endpoints %s", addressesOf(list))
		}
		if _, ok := w.Discovery("default/x"); ok {
			t.Error("without dns it is looked up still")
		}
	})
}

// TestDiscoveryAsksFewAtATime, and one that is silent keeps nobody but its like waiting.
func TestDiscoveryAsksFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		var now, most, done atomic.Int64
		w.discovery.resolver = resolverFunc(func(*store.DNS, []found) (finding, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			defer done.Add(1)
			time.Sleep(time.Second)
			return finding{}, errors.New("no answer")
		})
		var list []*store.Backend
		for i := range 20 {
			list = append(list, byName(fmt.Sprint("x", i), time.Hour))
		}
		w.put(list...)
		time.Sleep(11 * time.Second)
		if most.Load() != lookers || done.Load() < 20 {
			t.Errorf("%d look-ups at a time, want %d; %d of 20 are made", most.Load(), lookers, done.Load())
		}
	})
}

// TestDiscoveryWaitsForFirstAnswers once, and not for long.
func TestDiscoveryWaitsForFirstAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(h2.NewEngine(h2.Limits{}), newWorld(t, h2.Limits{}).Pool.log)
		silent := make(chan struct{})
		p.discovery.resolver = silentFor{silent, "silent.test"}
		var list []*store.Backend
		for i := range 20 {
			list = append(list, byName(fmt.Sprint("x", i), time.Hour))
		}
		list = append(list, byName("silent", time.Hour))
		p.Commit(p.Prepare(&store.Set{Backends: list}))()
		begun := time.Now()
		if !p.LookUpFirst(time.Second) {
			t.Error("nothing was answered")
		}
		if d := time.Since(begun); d != time.Second {
			t.Errorf("it took %v, want the second that one is silent", d)
		}
		p.Commit(p.Prepare(&store.Set{Backends: list}))()
		for _, b := range list[:20] {
			if got := addressesOf(p.Backend(b.Key()).Endpoints); got != "10.0.0.1:1" {
				t.Errorf("backend %s has endpoints %s", b.Key(), got)
			}
		}
		if d, ok := p.Discovery("default/silent"); !ok || !d.At.IsZero() || d.Problem != "" {
			t.Errorf("the one that was cut short: %+v, %v", d, ok)
		}
	})
}

// silentFor answers all names but one.
type silentFor struct {
	until chan struct{}
	name  string
}

func (s silentFor) lookUp(ctx context.Context, d *store.DNS, _ []found) (finding, error) {
	if d.Name == s.name {
		select {
		case <-s.until:
		case <-ctx.Done():
			return finding{}, ctx.Err()
		}
	}
	return finding{found: []found{{"10.0.0.1:1", d.Name, 1}}, keep: time.Hour}, nil
}

// FuzzReply: whatever a server says, no more comes of it than endpoints that can be used.
func FuzzReply(f *testing.F) {
	q := question{"cart.test.", recordSRV}
	for _, lines := range [][]string{
		{"cart.test. 30 IN SRV 0 1 1 a.test."},
		{"cart.test. 30 IN CNAME b.test.", "b.test. 1 IN SRV 1 2 3 c.test.", "b.test. 1 IN A 10.0.0.1"},
		chain(3),
		{},
	} {
		raw, err := zoneMessage(q, lines...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, kind := range []record{recordSRV, recordA, recordAAAA} {
			r, err := miekg{}.read(raw, 1, question{q.name, kind})
			if err != nil {
				continue
			}
			if r.aliases > maxAliases || r.keep < 0 || r.keep > maxKeep {
				t.Errorf("%+v", r)
			}
			var targets []target
			for _, v := range byPriority(r.services) {
				targets = append(targets, target{v, []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), v.port)}})
			}
			list := finding{found: shares(targets)}
			for _, a := range r.addresses {
				list.found = append(list.found, spread([]netip.AddrPort{netip.AddrPortFrom(a, 1)}, "x", 1)...)
			}
			list.choose(3, nobody)
			for i, e := range list.found {
				at := netip.MustParseAddrPort(e.address)
				if at.Port() == 0 || at.Addr().IsMulticast() || at.Addr().IsUnspecified() || e.weight == 0 || i > 0 && list.found[i-1].address >= e.address {
					t.Errorf("endpoint %+v", e)
				}
			}
			if len(list.found) > 3 || len(list.notes) > maxNotes+1 {
				t.Errorf("%d endpoints, %d notes", len(list.found), len(list.notes))
			}
		}
	})
}
