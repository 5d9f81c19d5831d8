package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/store"
)

// crowd is a backend of so many endpoints, which can all be reached.
func crowd(w *world, n int, change func(*store.BackendSpec)) (*store.Backend, []*Endpoint) {
	var addresses []string
	for i := range n {
		addresses = append(addresses, fmt.Sprintf("a:%d", i+1))
		w.host(addresses[i], manners{})
	}
	spec := to("x", addresses...)
	if change != nil {
		change(&spec.Spec)
	}
	return spec, w.put(spec)
}

// end is so many RPCs that end at e in that way.
func end(e *Endpoint, n int, v Verdict) {
	for range n {
		e.Acquire()
		e.Done(Result{Verdict: v, Took: time.Millisecond})
	}
}

// ejected are the numbers of endpoints that are.
func ejected(list []*Endpoint) (which []int) {
	for i, e := range list {
		if e.Condition()&balance.Ejected != 0 {
			which = append(which, i)
		}
	}
	return which
}

// share is how many of n RPCs that end well, one after the other, each endpoint gets.
func share(w *world, n int) []int {
	b := w.Backend("default/x")
	got := make([]int, len(b.Endpoints))
	for range n {
		e, i := b.Pick(balance.Request{})
		got[i]++
		time.Sleep(time.Millisecond)
		e.Done(Result{Verdict: Success, Took: time.Millisecond})
	}
	return got
}

func TestGroupEjectsAfterARowOfFailures(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec *store.OutlierDetection
		ends []Verdict
		want bool
	}{
		{"four failures", nil, []Verdict{Failure, Failure, Failure, Failure}, false},
		{"five failures", nil, []Verdict{Failure, Failure, Failure, Failure, Failure}, true},
		{"a success between", nil, []Verdict{Failure, Failure, Failure, Failure, Success, Failure, Failure, Failure, Failure}, false},
		{"what says nothing between", nil, []Verdict{Failure, Failure, Neutral, Failure, Neutral, Failure, Failure}, true},
		{"nothing but what says nothing", nil, slices.Repeat([]Verdict{Neutral}, 100), false},
		{"turned off", &store.OutlierDetection{Disabled: true}, slices.Repeat([]Verdict{Failure}, 100), false},
		{"two are enough", with(func(o *store.OutlierDetection) { o.ConsecutiveErrors = 2 }), []Verdict{Failure, Failure}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				_, list := crowd(w, 3, func(s *store.BackendSpec) { s.OutlierDetection = tt.spec })
				for _, v := range tt.ends {
					end(list[1], 1, v)
				}
				if got := len(ejected(list)) == 1; got != tt.want {
					t.Fatalf("ejected %v, want %v", ejected(list), tt.want)
				}
				if got := share(w, 90); tt.want != (got[1] == 0) {
					t.Errorf("the RPCs went to %v", got)
				}
			})
		})
	}
}

// with is the outlier detection that holds by default, but for a change.
func with(change func(*store.OutlierDetection)) *store.OutlierDetection {
	o := store.DefaultOutlierDetection()
	change(o)
	return o
}

// Whatever fails, so many are left as the policy says, and one in any case.
func TestGroupNeverEjectsTooMany(t *testing.T) {
	for _, tt := range []struct{ endpoints, percent, want int }{
		{1, 50, 0},
		{1, 100, 0},
		{2, 50, 1},
		{2, 10, 1},
		{3, 50, 1},
		{4, 50, 2},
		{5, 50, 2},
		{5, 10, 1},
		{5, 0, 0},
		{5, 100, 4}, // the fifth would be the last that can have RPCs
		{20, 30, 6},
	} {
		t.Run(fmt.Sprintf("%d of which %d percent", tt.endpoints, tt.percent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				_, list := crowd(w, tt.endpoints, func(s *store.BackendSpec) {
					s.OutlierDetection = with(func(o *store.OutlierDetection) { o.MaxEjectedPercent = tt.percent })
				})
				for range 20 {
					for _, e := range list {
						end(e, 3, Failure)
						if n := len(ejected(list)); n > tt.want {
							t.Fatalf("%d are ejected, want at most %d", n, tt.want)
						}
					}
				}
				if n := len(ejected(list)); n != tt.want {
					t.Errorf("%d are ejected, want %d", n, tt.want)
				}
			})
		})
	}
}

// The bound holds however failures interleave, and while endpoints come back.
func TestGroupNeverEjectsTooManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		_, list := crowd(w, 10, func(s *store.BackendSpec) {
			s.OutlierDetection = with(func(o *store.OutlierDetection) {
				o.MaxEjectedPercent, o.EjectFor, o.MaxEjectFor = 30, store.Duration(time.Second), store.Duration(2*time.Second)
			})
		})
		b := w.Backend("default/x")
		most := 0
		for range 100 {
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for k := range 50 {
						e, _ := b.Pick(balance.Request{})
						v := Failure
						if k%10 == 9 {
							v = Success
						}
						e.Done(Result{Verdict: v, Took: time.Microsecond})
					}
				})
			}
			wg.Wait()
			n := len(ejected(list))
			if most = max(most, n); n > 3 {
				t.Fatalf("%d of ten are ejected, want three at most", n)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if most != 3 {
			t.Errorf("at most %d were ejected, want three", most)
		}
		for _, e := range list {
			if e.Active() != 0 {
				t.Errorf("%d RPCs are open on %s", e.Active(), e.Address())
			}
		}
	})
}

// The bound holds when endpoints leave: those come back that were ejected first.
func TestGroupTakesBackWhenOthersLeave(t *testing.T) {
	for _, tt := range []struct {
		name string
		left []string
		want []int // ejected, of those that are left
	}{
		{"nobody", []string{"a:1", "a:2", "a:3", "a:4", "a:5", "a:6"}, []int{0, 1, 2}},
		{"one that is well", []string{"a:1", "a:2", "a:3", "a:4", "a:5"}, []int{0, 2}},
		{"all that are well", []string{"a:1", "a:2", "a:3"}, []int{0}},
		{"all but one that is ejected", []string{"a:1"}, nil},
		{"one that is ejected", []string{"a:1", "a:2", "a:4", "a:5", "a:6"}, []int{0, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				spec, list := crowd(w, 6, nil)
				for _, i := range []int{1, 2, 0} {
					end(list[i], 5, Failure)
					time.Sleep(time.Second)
				}
				fewer := *spec
				fewer.Spec.Endpoints = slices.Clone(spec.Spec.Endpoints)
				fewer.Spec.Endpoints = slices.DeleteFunc(fewer.Spec.Endpoints, func(e store.Endpoint) bool { return !slices.Contains(tt.left, e.Address) })
				w.Commit(w.Prepare(&store.Set{Backends: []*store.Backend{&fewer}}))()
				if got := ejected(w.Backend("default/x").Endpoints); !slices.Equal(got, tt.want) {
					t.Errorf("ejected %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// One that cannot be reached is no one that others' RPCs could go to.
func TestGroupKeepsTheLastThatCanBeReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		_, list := crowd(w, 3, nil)
		for _, e := range list[:2] {
			w.set(func() { delete(w.hosts, e.Address()) })
			open(e, 1)
		}
		end(list[2], 100, Failure)
		if got := ejected(list); got != nil {
			t.Errorf("ejected %v, the only one that can be reached", got)
		}
	})
}

// The n-th time in a row is n times as long, up to a bound, and what is long ago is
// forgotten step by step.
func TestGroupEjectsForLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		_, list := crowd(w, 2, func(s *store.BackendSpec) {
			s.OutlierDetection = with(func(o *store.OutlierDetection) { o.MaxEjectFor = store.Duration(70 * time.Second) })
		})
		e := list[0]
		// waits is how long no RPC reaches e.
		waits := func() time.Duration {
			begun := time.Now()
			for range 10 * 600 {
				if got := share(w, 10); got[0] > 0 {
					return time.Since(begun)
				}
				time.Sleep(100 * time.Millisecond)
			}
			return time.Hour
		}
		wait := func(when string, want time.Duration) {
			t.Helper()
			if got := waits(); got < want || got > want+time.Second {
				t.Errorf("%s it was left out for %v, want %v", when, got, want)
			}
		}
		for i, want := range []time.Duration{30 * time.Second, time.Minute, 70 * time.Second, 70 * time.Second} {
			end(e, 5, Failure)
			wait(fmt.Sprintf("time %d:", i+1), want)
		}
		time.Sleep(61 * time.Second) // well for twice EjectFor
		end(e, 5, Failure)
		wait("after a minute that it was well", time.Minute)
		time.Sleep(10 * time.Minute)
		end(e, 5, Failure)
		wait("after ten", 30*time.Second)
	})
}

// After its time one RPC tries the endpoint, and no second one before that has ended.
func TestGroupLetsOneRPCTry(t *testing.T) {
	for _, tt := range []struct {
		name   string
		result Result
		back   bool
	}{
		{"it ends well", Result{Verdict: Success, Took: time.Second}, true},
		{"it fails", Result{Verdict: Failure, Took: time.Second}, false},
		{"a stream ends well", Result{Verdict: Success}, true},
		{"a stream fails", Result{Verdict: Failure}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				_, list := crowd(w, 3, nil)
				e := list[2]
				end(e, 5, Failure)
				since := e.Status()
				if since.State != StateEjected || since.Why != "5 RPCs in a row failed; one RPC will try it in 30s" {
					t.Errorf("it is %s: %s", since.State, since.Why)
				}
				time.Sleep(29 * time.Second)
				if got := share(w, 100); got[2] != 0 {
					t.Fatalf("%d RPCs went there before its time", got[2])
				}
				time.Sleep(2 * time.Second)
				if s := e.Status(); s.Why != "5 RPCs in a row failed; the next RPC tries it" || !s.Since.Equal(since.Since) {
					t.Errorf("it is %s since %v: %s", s.State, s.Since, s.Why)
				}
				b := w.Backend("default/x")
				tries := 0
				for range 100 {
					if got, _ := b.Pick(balance.Request{}); got == e {
						tries++
					} else {
						got.Done(Result{Verdict: Success})
					}
				}
				if tries != 1 {
					t.Fatalf("%d RPCs try it, want one", tries)
				}
				time.Sleep(time.Second)
				if got := share(w, 100); got[2] != 0 {
					t.Errorf("%d more RPCs try it while the first is open", got[2])
				}
				e.Done(tt.result)
				if got := len(ejected(list)) == 0; got != tt.back {
					t.Fatalf("it is back %v, want %v", got, tt.back)
				}
				if got := share(w, 90); (got[2] >= 10) != tt.back {
					t.Errorf("the RPCs go to %v", got)
				}
				if why := e.Status().Why; !tt.back && why != "the RPC that tried it failed; one RPC will try it in 1m0s" {
					t.Errorf("it stays out: %s", why)
				}
			})
		})
	}
}

// A process that was killed has failed all of its RPCs. Its successor is tried once it
// can be reached, and no sooner.
func TestGroupTriesWhatHasBeenStartedAnew(t *testing.T) {
	for _, tt := range []struct {
		name string
		next Verdict
		back bool
	}{
		{"and is well", Success, true},
		{"and fails again", Failure, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				_, list := crowd(w, 3, nil)
				e := list[2]
				w.set(func() { delete(w.hosts, e.Address()) })
				open(e, 1)
				end(e, 5, Failure)
				time.Sleep(3 * time.Second)
				if got := share(w, 100); got[2] != 0 {
					t.Fatalf("%d RPCs went to what is not there", got[2])
				}
				w.host(e.Address(), manners{})
				time.Sleep(5 * time.Second) // it is dialled again in this time
				b, tries := w.Backend("default/x"), 0
				for range 100 {
					if got, _ := b.Pick(balance.Request{}); got == e {
						tries++
					} else {
						got.Done(Result{Verdict: Success})
					}
				}
				if tries != 1 {
					t.Fatalf("%d RPCs try it, want one", tries)
				}
				e.Done(Result{Verdict: tt.next, Took: time.Millisecond})
				if got := len(ejected(list)) == 0; got != tt.back {
					t.Errorf("it is back %v, want %v", got, tt.back)
				}
			})
		})
	}
}

// One that takes each RPC for a reason to hang up is lost and there again all the time, and
// nobody new for that.
func TestGroupLeavesOutWhoHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		reach := w.Pool.dial
		w.Pool.dial = func(ctx context.Context, a string) (net.Conn, error) {
			time.Sleep(3 * time.Millisecond)
			return reach(ctx, a)
		}
		w.host("a:1", manners{answer: func(p *peer, id uint32, _ string) { p.reply(id) }})
		w.host("a:2", manners{answer: func(p *peer, id uint32, _ string) { p.reply(id) }})
		var had atomic.Int32
		w.host("a:3", manners{answer: func(p *peer, _ uint32, _ string) { had.Add(1); p.nc.Close() }})
		bad := w.put(to("x", "a:1", "a:2", "a:3"))[2]
		b := w.Backend("default/x")
		for range 4000 {
			e, _ := b.Pick(balance.Request{})
			c := call(e)
			time.Sleep(time.Millisecond)
			synctest.Wait()
			v := Neutral
			switch {
			case c.over():
				v = Success
			case c.end() != nil:
				v = Failure
			}
			e.Done(Result{Verdict: v, Took: time.Millisecond})
		}
		if n, _ := bad.Ejections(); n != 1 || had.Load() > 6 {
			t.Errorf("it was ejected %d times and had %d RPCs of 4000, want once and 5", n, had.Load())
		}
		if n := len(w.dials("a:3")); n > 10 {
			t.Errorf("it was dialled %d times", n)
		}
	})
}

// A process that is started again and again, and fails whatever tries it, is not tried each
// time that it is there.
func TestGroupHastensOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		_, list := crowd(w, 3, nil)
		e := list[2]
		open(e, 1)
		end(e, 5, Failure)
		// bounce has it be away for a while, and lets an RPC try it where one may.
		bounce := func() (tried bool) {
			w.set(func() { w.hosts[e.Address()].refuse = errors.New("away") })
			h := w.hosts[e.Address()]
			w.peer(h, len(h.peers)-1).nc.Close()
			time.Sleep(time.Second)
			w.set(func() { h.refuse = nil })
			time.Sleep(5 * time.Second)
			for range 20 {
				got, _ := w.Backend("default/x").Pick(balance.Request{})
				if tried = tried || got == e; got == e {
					got.Done(Result{Verdict: Failure})
				} else {
					got.Done(Result{Verdict: Success})
				}
			}
			return tried
		}
		if !bounce() {
			t.Fatal("it has been started anew, and no RPC tries it")
		}
		for range 2 {
			if bounce() {
				t.Error("it has failed once more, and is tried again before its time")
			}
		}
		time.Sleep(time.Minute)
		for ejected(list) != nil {
			share(w, 10)
		}
		end(e, 5, Failure)
		if !bounce() {
			t.Error("it was well in between, has been started anew, and no RPC tries it")
		}
	})
}

// What tries and tells nothing leaves the question open for another; a stream that has
// not failed in ten seconds is an answer.
func TestGroupAsksAgainWhenAnRPCTellsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		_, list := crowd(w, 2, nil)
		e := list[0]
		end(e, 5, Failure)
		time.Sleep(31 * time.Second)
		b := w.Backend("default/x")
		before := time.Now()
		e.Acquire() // a stream of before, which goes on
		try := func(why string) {
			t.Helper()
			for range 10 {
				got, _ := b.Pick(balance.Request{})
				if got == e {
					return
				}
				got.Done(Result{Verdict: Success})
			}
			t.Fatalf("%s: no RPC tries it", why)
		}
		for range 3 {
			try("the last has said nothing")
			time.Sleep(500 * time.Millisecond)
			e.Done(Result{Age: 500 * time.Millisecond})
			time.Sleep(time.Second)
		}
		try("it is to be a stream")
		time.Sleep(probePatience - time.Second)
		if ejected(list) == nil {
			t.Error("a stream of nine seconds was taken for a proof")
		}
		time.Sleep(2 * time.Second)
		if got := ejected(list); got != nil {
			t.Error("a stream that goes on was not taken for a proof")
		}
		e.Done(Result{Verdict: Success})
		e.Done(Result{Age: time.Since(before)})
	})
}

// What was on its way when the endpoint was ejected says nothing of how it is now.
func TestGroupHearsNothingOfBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		_, list := crowd(w, 2, nil)
		e := list[0]
		for range 4 {
			e.Acquire()
		}
		begun := time.Now()
		end(e, 5, Failure)
		e.Done(Result{Verdict: Success, Took: time.Millisecond})
		if ejected(list) == nil {
			t.Error("an RPC of before brought it back at once")
		}
		time.Sleep(31 * time.Second)
		e.Done(Result{Verdict: Success})
		if ejected(list) == nil {
			t.Error("a stream of before brought it back, while nothing has tried it")
		}
		for range 4 {
			if got, _ := w.Backend("default/x").Pick(balance.Request{}); got != e {
				got.Done(Result{})
			}
		}
		e.Done(Result{Verdict: Success, Age: time.Since(begun)})
		if ejected(list) == nil {
			t.Error("a stream of before brought it back while another tries")
		}
		e.Done(Result{Verdict: Failure, Age: time.Since(begun)})
		if s := e.Status(); s.Why != "5 RPCs in a row failed; the next RPC tries it" {
			t.Errorf("a stream of before had it ejected once more: %s", s.Why)
		}
		e.Done(Result{Verdict: Success, Took: time.Millisecond})
		if ejected(list) != nil {
			t.Error("the RPC that tried did not bring it back")
		}
	})
}

// What is known of an endpoint is not the table's.
func TestGroupKeepsWhoIsEjectedOverChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		spec, list := crowd(w, 4, nil)
		end(list[3], 5, Failure)
		before := list[3].Status()
		time.Sleep(10 * time.Second)

		other := to("y", "b:1")
		w.put(spec, other)
		weighted := *spec
		weighted.Spec.Endpoints = slices.Clone(spec.Spec.Endpoints)
		weighted.Spec.Endpoints[0].Weight = 3
		weighted.Spec.LoadBalancing.Policy = store.RoundRobin
		list = w.put(&weighted, other)
		if after := list[3].Status(); after.State != StateEjected || !after.Since.Equal(before.Since) {
			t.Fatalf("it is %s since %v, want ejected since %v", after.State, after.Since, before.Since)
		}
		if got := share(w, 100); got[3] != 0 {
			t.Errorf("%d RPCs go there", got[3])
		}
		time.Sleep(21 * time.Second)
		if got := share(w, 100); got[3] == 0 {
			t.Error("its time is over, and no RPC tries it")
		}

		end(list[3], 5, Failure)
		off := weighted
		off.Spec.OutlierDetection = &store.OutlierDetection{Disabled: true}
		if list = w.put(&off, other); ejected(list) != nil {
			t.Error("it is ejected still, where nobody is to be")
		}
		if len(w.groups) != 2 {
			t.Errorf("%d groups, want 2", len(w.groups))
		}
		if w.put(); len(w.groups) != 0 {
			t.Errorf("%d groups are left of none", len(w.groups))
		}
	})
}

func TestGroupComparesSuccessRates(t *testing.T) {
	rule := &store.SuccessRate{Interval: store.Duration(10 * time.Second), MinEndpoints: 5, MinRequests: 100, Deviations: 1.9}
	for _, tt := range []struct {
		name  string
		rates []int // percent of 200 RPCs; negative: of 50
		want  []int
	}{
		{"all alike", []int{99, 99, 99, 99, 99}, nil},
		{"one fails now and then", []int{100, 100, 100, 100, 100, 60}, []int{5}},
		{"all fail as often", []int{60, 60, 60, 60, 60, 60}, nil},
		{"within what chance allows for", []int{99, 98, 97, 98, 99, 96}, nil},
		{"one RPC in fifty fails", []int{100, 100, 100, 100, 100, 98}, nil},
		{"hardly less than it may be", []int{100, 100, 100, 100, 100, 93}, []int{5}},
		{"too few endpoints have enough RPCs", []int{100, 100, 100, -100, -100, 50}, nil},
		{"one with too few RPCs is not judged", []int{100, 100, 100, 100, 100, -10}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				_, list := crowd(w, len(tt.rates), func(s *store.BackendSpec) {
					s.OutlierDetection = with(func(o *store.OutlierDetection) { o.SuccessRate = rule })
				})
				time.Sleep(2 * time.Second)
				for i, percent := range tt.rates {
					n := 200
					if percent < 0 {
						percent, n = -percent, 50
					}
					for k := range n {
						v := Success
						if k*percent/100 == (k+1)*percent/100 {
							v = Failure
						}
						end(list[i], 1, v)
						list[i].tally.row.Store(0) // it is not the row that is to eject
					}
				}
				time.Sleep(10 * time.Second)
				if got := ejected(list); !slices.Equal(got, tt.want) {
					t.Errorf("ejected %v, want %v", got, tt.want)
				}
				for _, i := range tt.want {
					if why := list[i].Status().Why; !strings.HasPrefix(why, fmt.Sprintf("%d.0 %% of its RPCs succeeded, less than the ", tt.rates[i])) {
						t.Errorf("it is out: %s", why)
					}
				}
				time.Sleep(12 * time.Second)
				if got := ejected(list); !slices.Equal(got, tt.want) {
					t.Errorf("without an RPC ejected %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// What is logged says what, where and why, once.
func TestGroupTellsOfEjections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		_, list := crowd(w, 2, nil)
		end(list[0], 5, Failure)
		time.Sleep(31 * time.Second)
		for range 3 {
			share(w, 10)
			time.Sleep(time.Second)
		}
		for _, want := range []string{
			`level=WARN msg="endpoint ejected" backend=default/x addr=a:1 was=new why="5 RPCs in a row failed; one RPC will try it in 30s"`,
			`level=INFO msg="endpoint came back" backend=default/x addr=a:1 was=ejected`,
		} {
			if n := strings.Count(w.log.String(), want); n != 1 {
				t.Errorf("the log has %d times %s:\n%s", n, want, w.log)
			}
		}
	})
}

// asksBack is a log that looks at what it is told of, as slow as it likes.
type asksBack struct {
	slog.Handler
	lines *atomic.Int32
	ask   func()
}

func (h asksBack) Handle(context.Context, slog.Record) error {
	h.lines.Add(1)
	h.ask()
	return nil
}

// Nobody waits for the log: no lock is held meanwhile.
func TestPoolHoldsNoLockWhileItTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		var list []*Endpoint
		var lines atomic.Int32
		w.Pool.log = slog.New(asksBack{slog.NewTextHandler(io.Discard, nil), &lines, func() {
			for _, e := range list {
				e.State()
				if g := e.group.Load(); g != nil {
					g.mu.Lock()
					_ = g.compared
					g.mu.Unlock()
				}
			}
			w.States()
		}})
		spec, all := crowd(w, 3, nil)
		list = all
		w.set(func() { delete(w.hosts, "a:3") })
		open(list[2], 1) // not reached
		end(list[0], 5, Failure)
		list[0].Status() // ejected
		time.Sleep(31 * time.Second)
		share(w, 10)
		time.Sleep(time.Second) // came back
		drained := *spec
		drained.Spec.Endpoints = slices.Clone(spec.Spec.Endpoints)
		drained.Spec.Endpoints[1].Weight = 0
		drained.Spec.Endpoints[1].Drain = &store.Drain{Since: time.Now(), Grace: store.Duration(time.Second)}
		list[1].Acquire()
		w.Commit(w.Prepare(&store.Set{Backends: []*store.Backend{&drained}}))()
		time.Sleep(3 * time.Second)
		w.Overdue(time.Now())
		list[1].Release()
		if n := lines.Load(); n != 5 {
			t.Errorf("%d lines: not reached, ejected, came back, drained and overdue are five", n)
		}
	})
}

func TestToldIsBounded(t *testing.T) {
	var b told
	now := time.Unix(1e9, 0)
	lines := 0
	for range 1000 {
		if b.spend(now) {
			lines++
		}
	}
	if lines != maxTold || b.left != 1000-maxTold {
		t.Errorf("%d lines, %d left out", lines, b.left)
	}
	if !b.spend(now.Add(toldEvery)) || b.spend(now.Add(toldEvery)) {
		t.Error("one more line is due in each tenth of a second")
	}
}
