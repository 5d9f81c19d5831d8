package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/gateway/wire"
	"sluice/store"
)

// checked is a backend whose endpoints are asked every second.
func checked(name string, check store.HealthCheck, addresses ...string) *store.Backend {
	spec := to(name, addresses...)
	check.Interval, check.Timeout = store.Duration(time.Second), store.Duration(500*time.Millisecond)
	if check.HealthyThreshold == 0 {
		check.HealthyThreshold, check.UnhealthyThreshold = 2, 3
	}
	spec.Spec.HealthCheck = &check
	return spec
}

var byGRPC = store.HealthCheck{GRPC: &store.GRPCCheck{Service: "shop"}}

// healthMessage is an answer of that status.
func healthMessage(status byte) string { return prefixed(string([]byte{0x08, status})) }

func prefixed(message string) string {
	return string(wire.AppendPrefix(nil, wire.Prefix{Length: uint32(len(message))})) + message
}

// begins sends the header of a gRPC response.
func begins(p *peer, id uint32) {
	p.header(id, false, ":status", "200", "content-type", "application/grpc")
}

// ends sends the trailers.
func ends(p *peer, id uint32, code string) { p.header(id, true, "grpc-status", code) }

// nurse is a health service whose word can change.
type nurse struct {
	status  atomic.Uint32
	asked   atomic.Int32 // by Check
	watched atomic.Int32 // by Watch
	watches bool         // it has Watch; else UNIMPLEMENTED
	late    atomic.Bool  // it thinks for two seconds
}

func newNurse(status uint32) *nurse {
	n := new(nurse)
	n.status.Store(status)
	return n
}

func (n *nurse) manners() manners { return manners{answer: n.answer} }

func (n *nurse) answer(p *peer, id uint32, path string) {
	switch path {
	case healthCheckPath:
		n.asked.Add(1)
		if n.late.Load() {
			return
		}
		begins(p, id)
		p.data(id, healthMessage(byte(n.status.Load())))
		ends(p, id, "0")
	case healthWatchPath:
		n.watched.Add(1)
		if !n.watches {
			p.header(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "12")
			return
		}
		begins(p, id)
		p.data(id, healthMessage(byte(n.status.Load())))
	}
}

func TestHealthReadsWhatServersSay(t *testing.T) {
	huge := string(wire.AppendPrefix(nil, wire.Prefix{Length: 1<<32 - 1})) + strings.Repeat("x", 4000)
	for _, tt := range []struct {
		name string
		says func(p *peer, id uint32)
		why  string // empty: it is well
	}{
		{"SERVING", func(p *peer, id uint32) { begins(p, id); p.data(id, healthMessage(1)); ends(p, id, "0") }, ""},
		{"SERVING, and fields of a later version", func(p *peer, id uint32) {
			begins(p, id)
			p.data(id, prefixed("\x12\x03new\x08\x01\x18\x07"))
			ends(p, id, "0")
		}, ""},
		{"UNKNOWN", func(p *peer, id uint32) { begins(p, id); p.data(id, prefixed("")); ends(p, id, "0") }, "health check answered status 0, want SERVING"},
		{"NOT_SERVING", func(p *peer, id uint32) { begins(p, id); p.data(id, healthMessage(2)); ends(p, id, "0") }, "health check answered NOT_SERVING"},
		{"NOT_FOUND", func(p *peer, id uint32) {
			p.header(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "5")
		}, `health check answered NOT_FOUND: the server does not know the service "shop"`},
		{"NOT_FOUND behind a header", func(p *peer, id uint32) { begins(p, id); ends(p, id, "5") }, `health check answered NOT_FOUND: the server does not know the service "shop"`},
		{"no such service", func(p *peer, id uint32) {
			p.header(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "12")
		}, "health check answered UNIMPLEMENTED: the server has no grpc.health.v1"},
		{"another error", func(p *peer, id uint32) {
			p.header(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "14", "grpc-message", "no%0Adisk")
		}, `health check answered UNAVAILABLE: "no\ndisk"`},
		{"a status that is no number", func(p *peer, id uint32) { begins(p, id); p.data(id, healthMessage(1)); ends(p, id, "well") }, "health check answered without a grpc-status"},
		{"no status", func(p *peer, id uint32) {
			begins(p, id)
			p.write(func() { p.fr.WriteData(id, true, []byte(healthMessage(1))) })
		}, "health check answered without a grpc-status"},
		{"no message", func(p *peer, id uint32) { begins(p, id); ends(p, id, "0") }, "health check answered without a message"},
		{"two messages", func(p *peer, id uint32) {
			begins(p, id)
			p.data(id, healthMessage(1)+healthMessage(1))
			ends(p, id, "0")
		}, "health check answered with more than one message"},
		{"a page", func(p *peer, id uint32) {
			p.header(id, false, ":status", "200", "content-type", "text/html")
			p.write(func() { p.fr.WriteData(id, true, []byte("<html>")) })
		}, `health check answered with content-type "text/html", which is not gRPC`},
		{"an error of HTTP", func(p *peer, id uint32) { p.header(id, true, ":status", "404") }, "health check answered HTTP 404 without gRPC"},
		{"a huge message", func(p *peer, id uint32) { begins(p, id); p.data(id, huge) }, "health check answered with a message of 4294967295 bytes, limit 1024"},
		{"a compressed message", func(p *peer, id uint32) { begins(p, id); p.data(id, "\x01\x00\x00\x00\x02\x08\x01") }, "health check answered with a compressed message, which was not asked for"},
		{"half a prefix", func(p *peer, id uint32) { begins(p, id); p.data(id, "\x00\x00"); ends(p, id, "0") }, "health check answered with half a message"},
		{"half a message", func(p *peer, id uint32) { begins(p, id); p.data(id, "\x00\x00\x00\x00\x02\x08"); ends(p, id, "0") }, "health check answered with half a message"},
		{"what is no message", func(p *peer, id uint32) { begins(p, id); p.data(id, prefixed("\x0a\x01x")); ends(p, id, "0") }, "health check answered with what is no HealthCheckResponse"},
		{"nothing", func(*peer, uint32) {}, "health check not answered within 500ms"},
		{"a header, and nothing", begins, "health check not answered within 500ms"},
		{"a message, and nothing", func(p *peer, id uint32) { begins(p, id); p.data(id, healthMessage(1)) }, "health check not answered within 500ms"},
		{"a reset", func(p *peer, id uint32) { p.write(func() { p.fr.WriteRSTStream(id, http2.ErrCodeInternal) }) }, "stream ended: peer reset, INTERNAL_ERROR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				w.host("a:1", manners{answer: func(p *peer, id uint32, path string) {
					if path == healthCheckPath {
						tt.says(p, id)
					}
				}})
				e := w.put(checked("x", byGRPC, "a:1"))[0]
				time.Sleep(600 * time.Millisecond)
				want := StateHealthy
				if tt.why != "" {
					want = StateUnhealthy
				}
				if s := e.Status(); s.State != want || s.Why != tt.why {
					t.Errorf("it is %s: %s\nwant %s: %s", s.State, s.Why, want, tt.why)
				}
			})
		})
	}
}

// The first check decides alone, later ones only as many in a row as are asked for.
func TestHealthChangesBySeveralChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		n := newNurse(serving)
		w.host("a:1", n.manners())
		e := w.put(checked("x", byGRPC, "a:1"))[0]
		var asked int32 // what was asked before a step: the first check may have been made
		for i, step := range []struct {
			says uint32
			want bool // well
		}{
			{1, true},
			{2, true},
			{2, true},
			{1, true},
			{2, true},
			{2, true},
			{2, false},
			{2, false},
			{1, false},
			{2, false},
			{1, false},
			{1, true},
			{2, true},
		} {
			n.status.Store(step.says)
			for n.asked.Load() == asked {
				time.Sleep(10 * time.Millisecond)
			}
			synctest.Wait()
			asked = n.asked.Load()
			if well := e.Condition()&balance.Unhealthy == 0; well != step.want {
				t.Errorf("check %d says %d: well %v, want %v", i, step.says, well, step.want)
			}
		}
		if passed, failed := e.Checks(); passed != 5 || failed != 8 {
			t.Errorf("%d checks passed, %d failed; want 5 and 8", passed, failed)
		}
	})
}

// Checks come every interval, give or take a tenth, and none two at a time.
func TestHealthAsksEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		var at []time.Time
		w.host("a:1", manners{answer: func(_ *peer, _ uint32, path string) {
			if path == healthCheckPath {
				at = append(at, time.Now())
			}
		}})
		w.put(checked("x", byGRPC, "a:1"))
		time.Sleep(time.Minute)
		w.put()
		synctest.Wait()
		var apart []time.Duration
		for i := range at[1:] {
			d := at[i+1].Sub(at[i]) - 500*time.Millisecond // of the timeout: none is answered
			if d < 900*time.Millisecond || d > 1100*time.Millisecond {
				t.Errorf("%v passed between two checks, want 1s give or take a tenth", d)
			}
			apart = append(apart, d)
		}
		if len(at) < 36 || apart[0] == apart[1] && apart[1] == apart[2] {
			t.Errorf("%d checks in a minute: %v", len(at), apart)
		}
		n := len(at)
		time.Sleep(time.Minute)
		if len(at) != n {
			t.Errorf("%d checks after the backend was gone", len(at)-n)
		}
	})
}

// A change that Watch tells of holds at once.
func TestHealthWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		n := newNurse(serving)
		n.watches = true
		h := w.host("a:1", n.manners())
		e := w.put(checked("x", byGRPC, "a:1"))[0]
		time.Sleep(200 * time.Millisecond)
		if n.watched.Load() != 1 {
			t.Fatalf("Watch was asked for %d times", n.watched.Load())
		}
		p := w.peer(h, 0)
		for _, step := range []struct {
			status byte
			why    string
		}{
			{2, "health check answered NOT_SERVING"},
			{1, ""},
			{3, `health check answered SERVICE_UNKNOWN: the server does not know the service "shop"`},
			{1, ""},
		} {
			n.status.Store(uint32(step.status))
			p.data(3, healthMessage(step.status))
			synctest.Wait()
			if got := e.Condition()&balance.Unhealthy == 0; got != (step.why == "") {
				t.Errorf("at %d it is well %v", step.status, got)
			}
			if s := e.Status(); s.Why != step.why {
				t.Errorf("at %d: %s, want %s", step.status, s.Why, step.why)
			}
		}
		time.Sleep(20 * time.Minute)
		if got := p.got(); strings.Contains(got, "PING") {
			t.Error("the backend was asked by PING, beside a Watch")
		}
		if n.watched.Load() != 1 {
			t.Errorf("Watch was asked for %d times", n.watched.Load())
		}
	})
}

// A server that goes is not held by the Watch that is open on it: on the next
// connection there is another.
func TestHealthLetsGoOfAServerThatGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		n := newNurse(serving)
		n.watches = true
		h := w.host("a:1", n.manners())
		e := w.put(checked("x", byGRPC, "a:1"))[0]
		time.Sleep(200 * time.Millisecond)
		p := w.peer(h, 0)
		p.goAway(3, http2.ErrCodeNo, "")
		synctest.Wait()
		if got := p.got(); !strings.Contains(got, "RST_STREAM 3 CANCEL") {
			t.Errorf("the Watch goes on: %s", got)
		}
		time.Sleep(3 * time.Second)
		if !p.over() {
			t.Error("the connection is open still")
		}
		if n.watched.Load() != 2 || e.Status().State != StateHealthy {
			t.Errorf("Watch was asked for %d times, want twice; it is %s", n.watched.Load(), e.Status().State)
		}
	})
}

// A server without Watch is not asked for it at each check; one that floods neither,
// and what it says by Check holds.
func TestHealthLeavesWatch(t *testing.T) {
	flood := func(p *peer, id uint32) {
		go func() {
			for i := range 10000 {
				if p.over() {
					return
				}
				p.data(id, healthMessage(byte(1+i%2)))
			}
		}()
	}
	for _, tt := range []struct {
		name string
		says func(p *peer, id uint32)
	}{
		{"UNIMPLEMENTED", func(p *peer, id uint32) {
			p.header(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "12")
		}},
		{"a flood", func(p *peer, id uint32) { begins(p, id); flood(p, id) }},
		{"a huge message", func(p *peer, id uint32) { begins(p, id); p.data(id, "\x00\xff\xff\xff\xffx") }},
		{"what is no message", func(p *peer, id uint32) { begins(p, id); p.data(id, prefixed("\xff")) }},
		{"a page", func(p *peer, id uint32) { p.header(id, true, ":status", "200", "content-type", "text/html") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				n := newNurse(serving)
				var watched atomic.Int32
				h := w.host("a:1", manners{answer: func(p *peer, id uint32, path string) {
					if path == healthWatchPath {
						watched.Add(1)
						tt.says(p, id)
						return
					}
					n.answer(p, id, path)
				}})
				e := w.put(checked("x", byGRPC, "a:1"))[0]
				time.Sleep(4 * time.Minute)
				if n := watched.Load(); n != 1 {
					t.Errorf("Watch was asked for %d times in four minutes, want once", n)
				}
				if asked := n.asked.Load(); asked < 200 {
					t.Errorf("%d checks, want one each second", asked)
				}
				if s := e.Status(); s.State != StateHealthy {
					t.Errorf("it is %s: %s", s.State, s.Why)
				}
				if w.peer(h, 0).over() {
					t.Error("the connection was lost")
				}
				if checks, failed := e.Checks(); checks+failed > 700 {
					t.Errorf("%d answers were listened to", checks+failed)
				}
				time.Sleep(2 * time.Minute)
				if n := watched.Load(); n != 2 {
					t.Errorf("Watch was asked for %d times in six minutes, want twice", n)
				}
			})
		})
	}
}

// Who has not been checked yet gets no RPC, unless nobody has.
func TestHealthComesBeforeRPCs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		first, second := newNurse(serving), newNurse(serving)
		first.late.Store(true)
		second.late.Store(true)
		w.host("a:1", first.manners())
		w.host("a:2", second.manners())
		spec := checked("x", byGRPC, "a:1", "a:2")
		w.put(spec)
		if got := share(w, 100); got[0] == 0 || got[1] == 0 {
			t.Errorf("nobody has been checked, and the RPCs go to %v", got)
		}
		first.late.Store(false)
		time.Sleep(3 * time.Second)
		if got := share(w, 100); got[0] != 100 {
			t.Errorf("one is well, the other says nothing, and the RPCs go to %v", got)
		}
		second.late.Store(false)
		time.Sleep(3 * time.Second)
		grown := *spec
		grown.Spec.Endpoints = append(grown.Spec.Endpoints[:2:2], store.Endpoint{Address: "a:3", Weight: 1})
		third := newNurse(serving)
		third.late.Store(true)
		w.host("a:3", third.manners())
		list := w.put(&grown)
		if got := share(w, 100); got[2] != 0 {
			t.Errorf("the third has not been checked, and the RPCs go to %v", got)
		}
		if s := list[2].Status(); s.State != StateUnhealthy && s.State != StateConnecting {
			t.Errorf("the third is %s", s.State)
		}
		third.late.Store(false)
		time.Sleep(5 * time.Second)
		if got := share(w, 90); min(got[0], got[1], got[2]) < 20 {
			t.Errorf("all are well, and the RPCs go to %v", got)
		}
	})
}

// What is known holds while the question changes, and goes when nobody asks.
func TestHealthHoldsOverChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		n := newNurse(notServing)
		w.host("a:1", n.manners())
		spec := checked("x", byGRPC, "a:1")
		e := w.put(spec)[0]
		time.Sleep(100 * time.Millisecond)
		asked := n.asked.Load()
		for range 50 { // as many changes of others
			w.put(spec, to("y", "b:1"))
			same := *spec
			spec = &same
			w.put(spec)
		}
		if e.Condition()&balance.Unhealthy == 0 || n.asked.Load() != asked {
			t.Errorf("it is %s, and was asked %d times more", e.Status().State, n.asked.Load()-asked)
		}
		other := checked("x", store.HealthCheck{GRPC: &store.GRPCCheck{}}, "a:1")
		if w.put(other); e.Condition()&balance.Unhealthy == 0 {
			t.Error("another service is asked for, and it is well without having said so")
		}
		n.status.Store(serving)
		time.Sleep(3 * time.Second)
		if e.Condition()&balance.Unhealthy != 0 {
			t.Error("it is well, and has said so twice")
		}
		n.status.Store(notServing)
		time.Sleep(5 * time.Second)
		if e.Condition()&balance.Unhealthy == 0 {
			t.Error("it is ill, and is thought well of")
		}
		if w.put(to("x", "a:1")); e.Condition()&balance.Unhealthy != 0 {
			t.Error("nobody asks, and it is thought to be ill")
		}
	})
}

// One that is full of RPCs is not ill for it.
func TestHealthSaysNothingOfTheFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		n := newNurse(serving)
		m := n.manners()
		m.settings = []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}
		w.host("a:1", m)
		spec := checked("x", byGRPC, "a:1")
		spec.Spec.Connection.MaxConnections = 1
		e := w.put(spec)[0]
		time.Sleep(200 * time.Millisecond)
		open(e, 1)[0].wantOpen(t)
		time.Sleep(time.Minute)
		if s := e.Status(); s.State != StateHealthy {
			t.Errorf("it is %s: %s", s.State, s.Why)
		}
	})
}

func TestHealthFindsWhoCannotBeReached(t *testing.T) {
	for _, check := range []store.HealthCheck{byGRPC, {TCP: &store.TCPCheck{}}, {HTTP: &store.HTTPCheck{Path: "/healthz"}}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, h2.Limits{})
			h := w.host("a:1", manners{answer: func(p *peer, id uint32, path string) {
				switch path {
				case healthCheckPath:
					newNurse(serving).answer(p, id, path)
				case "/healthz":
					p.header(id, true, ":status", "204")
				}
			}})
			e := w.put(checked("x", check, "a:1"))[0]
			time.Sleep(100 * time.Millisecond)
			if e.Condition() != 0 {
				t.Fatalf("%+v: it is %s: %s", check, e.Status().State, e.Status().Why)
			}
			w.set(func() { h.refuse = errors.New("no route") })
			if len(h.peers) > 0 {
				w.peer(h, 0).nc.Close()
			}
			time.Sleep(5 * time.Second)
			if e.Condition()&balance.Unhealthy == 0 {
				t.Errorf("%+v: it is %s: %s", check, e.Status().State, e.Status().Why)
			}
			if _, why := opinionOf(e); !strings.Contains(why, "no route") {
				t.Errorf("%+v: %s", check, why)
			}
		})
	}
}

// What can be reached again is asked at once, and does not wait for its next turn.
func TestHealthAsksWhoComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		n := newNurse(serving)
		h := w.host("a:1", n.manners())
		spec := checked("x", byGRPC, "a:1")
		spec.Spec.HealthCheck.Interval = store.Duration(time.Minute)
		spec.Spec.HealthCheck.UnhealthyThreshold, spec.Spec.HealthCheck.HealthyThreshold = 1, 1
		e := w.put(spec)[0]
		time.Sleep(time.Second)
		w.set(func() { h.refuse = errors.New("gone") })
		w.peer(h, 0).nc.Close()
		time.Sleep(2 * time.Minute)
		if well, why := opinionOf(e); well {
			t.Errorf("it is well: %s", why)
		}
		w.set(func() { h.refuse = nil })
		time.Sleep(backoffMax + time.Second)
		if e.Condition() != 0 {
			t.Errorf("it can be reached, and is %s: %s", e.State(), e.Status().Why)
		}
		if asked := n.asked.Load(); asked != 2 {
			t.Errorf("it was asked %d times, want at the beginning and when it was back", asked)
		}
	})
}

func TestHealthByHTTPWantsASuccess(t *testing.T) {
	for _, tt := range []struct {
		says func(p *peer, id uint32)
		why  string
	}{
		{func(p *peer, id uint32) { p.header(id, true, ":status", "200") }, ""},
		{func(p *peer, id uint32) {
			p.header(id, false, ":status", "299")
			p.data(id, strings.Repeat("x", 10000))
		}, ""}, // what it says is of no interest, nor when it ends
		{func(p *peer, id uint32) { p.header(id, true, ":status", "302", "location", "/well") }, "health check answered HTTP 302, want 200 to 299"},
		{func(p *peer, id uint32) { p.header(id, true, ":status", "503") }, "health check answered HTTP 503, want 200 to 299"},
		{func(*peer, uint32) {}, "health check not answered within 500ms"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, h2.Limits{})
			paths := make(map[string]bool)
			w.host("a:1", manners{answer: func(p *peer, id uint32, path string) {
				paths[path] = true
				tt.says(p, id)
			}})
			e := w.put(checked("x", store.HealthCheck{HTTP: &store.HTTPCheck{Path: "/a/b?c=%20d", Host: "shop"}}, "a:1"))[0]
			time.Sleep(600 * time.Millisecond)
			if well, why := opinionOf(e); well != (tt.why == "") || !well && why != tt.why {
				t.Errorf("well %v: %s, want %q", well, why, tt.why)
			}
			synctest.Wait()
			if fmt.Sprint(paths) != "map[/a/b?c=%20d:true]" {
				t.Errorf("asked for %v", paths)
			}
		})
	}
}

// opinionOf is what checks say of an endpoint, whatever else is wrong with it.
func opinionOf(e *Endpoint) (well bool, why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.health.well, e.health.why
}

func FuzzParseHealth(f *testing.F) {
	for _, seed := range []string{"", "\x08\x01", "\x08\x02\x08\x01", "\x12\x03new\x08\x01", "\x0a\x01x", "\xff\xff\xff\xff\xff", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x0b\x0c"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		status, err := parseHealth(p)
		again, errAgain := parseHealth(append(append([]byte(nil), p...), 0x08, 0x01))
		if err == nil && (errAgain != nil || again != serving) {
			t.Errorf("%x is status %d; with SERVING behind it it is %d, %v", p, status, again, errAgain)
		}
		if err != nil && status != 0 {
			t.Errorf("%x is status %d and an error: %v", p, status, err)
		}
	})
}

// Many that have not been checked yet are no reason to doubt what is known of the others.
func TestHealthOfNewcomersCausesNoPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		for _, a := range []string{"a:1", "a:2", "a:3"} {
			w.host(a, newNurse(serving).manners())
		}
		spec := checked("x", byGRPC, "a:1", "a:2", "a:3")
		list := w.put(spec)
		time.Sleep(3 * time.Second)
		end(list[2], 5, Failure)
		for i := range 6 {
			n := newNurse(serving)
			n.late.Store(true)
			address := fmt.Sprintf("b:%d", i)
			w.host(address, n.manners())
			spec = grownBy(spec, address)
		}
		w.put(spec)
		time.Sleep(100 * time.Millisecond) // they are connected
		if got := share(w, 100); got[0]+got[1] != 100 {
			t.Errorf("the RPCs go to %v, want the two that are well", got)
		}
	})
}

// A check that costs the connection is not made at once on the next one.
func TestHealthAsksInTurnWhoHangsUp(t *testing.T) {
	for name, leaves := range map[string]func(p *peer, id uint32){
		"the connection is closed": func(p *peer, _ uint32) { p.nc.Close() },
		"GOAWAY": func(p *peer, id uint32) {
			p.goAway(id, http2.ErrCodeNo, "")
			p.header(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "0")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, h2.Limits{})
				reach := w.Pool.dial
				w.Pool.dial = func(ctx context.Context, a string) (net.Conn, error) {
					time.Sleep(3 * time.Millisecond)
					return reach(ctx, a)
				}
				var asked atomic.Int32
				w.host("a:1", manners{answer: func(p *peer, id uint32, path string) {
					if path == healthCheckPath {
						asked.Add(1)
					}
					leaves(p, id)
				}})
				spec := checked("x", byGRPC, "a:1")
				spec.Spec.HealthCheck.Interval = store.Duration(5 * time.Second)
				w.put(spec)
				time.Sleep(16 * time.Second)
				if n := asked.Load(); n < 3 || n > 5 {
					t.Errorf("%d checks in 16s, want one each 5s", n)
				}
				if n := len(w.dials("a:1")); n > 15 {
					t.Errorf("dialled %d times", n)
				}
			})
		})
	}
}

// A Watch that ends late leaves alone the one that has taken its place.
func TestHealthForgetsOnlyTheWatchThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h2.Limits{})
		n := newNurse(serving)
		n.watches = true
		h := w.host("a:1", n.manners())
		e := w.put(checked("x", byGRPC, "a:1"))[0]
		time.Sleep(200 * time.Millisecond)
		over, cancel := context.WithCancel(t.Context())
		cancel()
		(&watch{checker: &checker{e: e}, service: "shop"}).run(over)
		p := w.peer(h, 0)
		p.goAway(3, http2.ErrCodeNo, "")
		synctest.Wait()
		if got := p.got(); !strings.Contains(got, "RST_STREAM 3 CANCEL") {
			t.Errorf("the Watch goes on: %s", got)
		}
	})
}
