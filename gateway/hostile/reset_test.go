package hostile

import (
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// The numbers of FAULTS A3 to A5: resets that a connection may cause, RPCs that
// they may start at the backend, and RPCs that may be open there at once.
const (
	maxResets = 200 + 33 // a second
	maxBegun  = 300
	maxAtOnce = 100
)

// malformed are requests that RFC 9113 section 8 forbids, and we reset.
var malformed = []struct {
	name  string
	block []byte
}{
	{"no path", block(":method", "POST", ":scheme", "http", ":authority", good)},
	{"upper case", grpcHead(good, echo, "X-Upper", "1")},
	{"connection", grpcHead(good, echo, "connection", "close")},
	{"late pseudo-field", append(block("a", "b"), grpcHead(good, echo)...)},
}

func TestA03ResetFlood(t *testing.T) {
	r := newRig(t, nodeConfig{})
	n := pick(10_000, 100_000)
	for _, m := range malformed {
		var s script
		for i := range n {
			s = s.headers(uint32(2*i+1), true, m.block)
		}
		tr := r.begin("reset flood: " + m.name)
		p := r.dial(manners{})
		p.write(s)
		tr.farewell(p, calm)
		tr.expect(closed("downstream", "resets"), 1)
		if got := p.count(http2.FrameRSTStream); got == 0 || got > maxResets {
			t.Errorf("%s: %d RST_STREAM before the end, limit %d", m.name, got, maxResets)
		}
		tr.judge(cut)
	}
}

// resetFloods are the ways to give up what was just begun.
var resetFloods = []struct {
	name string
	each func(s script, id uint32) script
}{
	{"headers, reset", func(s script, id uint32) script {
		return s.headers(id, false, grpcHead(good, hold)).reset(id, http2.ErrCodeCancel)
	}},
	{"request, reset", func(s script, id uint32) script {
		return s.headers(id, false, grpcHead(good, hold)).data(id, true, message(10)).reset(id, http2.ErrCodeCancel)
	}},
	{"refused stream by a client", func(s script, id uint32) script {
		return s.headers(id, false, grpcHead(good, hold)).reset(id, http2.ErrCodeRefusedStream)
	}},
	// Every third stream is one that the gateway answers by itself.
	{"with streams of no route", func(s script, id uint32) script {
		s = s.headers(3*id, true, grpcHead("nobody.test", echo))
		for _, id := range []uint32{3*id + 2, 3*id + 4} {
			s = s.headers(id, false, grpcHead(good, hold)).reset(id, http2.ErrCodeCancel)
		}
		return s
	}},
}

func TestA04RapidReset(t *testing.T) {
	r := newRig(t, nodeConfig{})
	n := pick(10_000, 100_000)
	for _, f := range resetFloods {
		var s script
		for i := range n {
			s = f.each(s, uint32(2*i+1))
		}
		tr := r.begin("rapid reset: " + f.name)
		begun := r.honest.held.Load()
		r.honest.peak.Store(0)
		p := r.dial(manners{})
		p.write(s)
		tr.farewell(p, calm)
		tr.expect(closed("downstream", "resets"), 1)
		tr.backendSaw(begun)
		tr.judge(cut)
	}
}

// backendSaw checks O5 and how many RPCs an attack has started.
func (tr *trial) backendSaw(before int64) {
	tr.t.Helper()
	begun, peak := tr.honest.held.Load()-before, tr.honest.peak.Load()
	tr.t.Logf("%s: backend began %d RPCs, %d at once", tr.name, begun, peak)
	if begun > maxBegun+10 { // a few come back each second
		tr.t.Errorf("%s: O5: backend began %d RPCs, limit %d", tr.name, begun, maxBegun)
	}
	// A handler hears of its cancellation some time after its server did.
	if peak > maxAtOnce+maxAtOnce/2 {
		tr.t.Errorf("%s: O5: backend had %d RPCs at once, limit %d", tr.name, peak, maxAtOnce)
	}
}

// An honest past buys no attack: what counts are the recent streams.
func TestA04RapidResetAfterHonestRPCs(t *testing.T) {
	r := newRig(t, nodeConfig{})
	p := r.dial(manners{generous: true})
	head, body := grpcHead(good, echo), message(10)
	for range pick(3000, 30_000) {
		if a := p.call(head, body); a.status() != "0" {
			t.Fatalf("an honest RPC: %v", &a)
		}
	}
	tr := r.begin("rapid reset after honest RPCs")
	begun := r.honest.held.Load()
	r.honest.peak.Store(0)
	var s script
	for i := range 10_000 {
		id := p.next + uint32(2*i)
		s = s.headers(id, false, grpcHead(good, hold)).reset(id, http2.ErrCodeCancel)
	}
	p.write(s)
	tr.farewell(p, calm)
	tr.expect(closed("downstream", "resets"), 1)
	if begun := r.honest.held.Load() - begun; begun > 2*maxBegun {
		t.Errorf("backend began %d RPCs, limit %d", begun, 2*maxBegun)
	}
	tr.judge(cut)
}

// Streams that the gateway refuses, at the limit of open ones, count for nothing
// either.
func TestA04RapidResetBesideRefusedStreams(t *testing.T) {
	r := newRig(t, nodeConfig{})
	tr := r.begin("rapid reset beside refused streams")
	begun := r.honest.held.Load()
	r.honest.peak.Store(0)
	var s script
	id := uint32(1)
	request := grpcHead(good, hold)
	open := []uint32{}
	for range 100 {
		s = s.headers(id, false, request)
		open = append(open, id)
		id += 2
	}
	for i := range pick(5000, 50_000) {
		s = s.headers(id, false, request).headers(id+2, false, request) // both refused
		s = s.reset(open[i%100], http2.ErrCodeCancel).headers(id+4, false, request)
		open[i%100] = id + 4
		id += 6
	}
	p := r.dial(manners{})
	p.write(s)
	tr.farewell(p, calm)
	tr.expect(closed("downstream", "resets"), 1)
	tr.backendSaw(begun)
	tr.judge(cost{cpu: 100 * time.Millisecond})
}

// primitives make the gateway reset a stream that it has opened at the backend.
var primitives = []struct {
	name string
	each func(s script, id uint32) script
}{
	{"window update of 0", func(s script, id uint32) script {
		return s.headers(id, false, grpcHead(good, hold)).windowUpdate(id, 0)
	}},
	{"window overflow", func(s script, id uint32) script {
		return s.headers(id, false, grpcHead(good, hold)).windowUpdate(id, maxID)
	}},
	{"data after the end", func(s script, id uint32) script {
		return s.headers(id, true, grpcHead(good, hold)).data(id, false, message(1))
	}},
	{"headers after the end", func(s script, id uint32) script {
		return s.headers(id, true, grpcHead(good, hold)).headers(id, true, block("a", "b"))
	}},
	{"priority of 4 bytes", func(s script, id uint32) script {
		return s.headers(id, false, grpcHead(good, hold)).frame(http2.FramePriority, 0, id, 0, 0, 0, 0)
	}},
	{"priority on itself", func(s script, id uint32) script {
		return s.headers(id, false, grpcHead(good, hold)).priority(id, id)
	}},
	{"content-length mismatch", func(s script, id uint32) script {
		return s.headers(id, false, grpcHead(good, hold, "content-length", "1")).data(id, true, message(10))
	}},
	{"trailers without end", func(s script, id uint32) script {
		return s.headers(id, false, grpcHead(good, hold)).headers(id, false, block("a", "b"))
	}},
	{"malformed trailers", func(s script, id uint32) script {
		return s.headers(id, false, grpcHead(good, hold)).headers(id, true, block(":path", "/"))
	}},
}

func TestA05MadeYouReset(t *testing.T) {
	r := newRig(t, nodeConfig{})
	for _, f := range primitives {
		var s script
		for i := range pick(1000, 10_000) {
			s = f.each(s, uint32(2*i+1))
		}
		tr := r.begin("made you reset: " + f.name)
		begun := r.honest.held.Load()
		r.honest.peak.Store(0)
		p := r.dial(manners{})
		p.write(s)
		tr.farewell(p, calm)
		tr.expect(closed("downstream", "resets"), 1)
		if got := p.count(http2.FrameRSTStream); got > maxResets {
			t.Errorf("%s: %d RST_STREAM before the end, limit %d", f.name, got, maxResets)
		}
		tr.backendSaw(begun)
		tr.judge(cost{cpu: 100 * time.Millisecond, memory: 32 << 20})
	}
}

// A backend that makes us reset what it answers loses its connection, and its
// callers get a status each time.
func TestA05MadeYouResetByABackend(t *testing.T) {
	answers := []struct {
		name   string
		answer func(id uint32) script
	}{
		{"window update of 0", func(id uint32) script { return script{}.windowUpdate(id, 0) }},
		{"window overflow", func(id uint32) script { return script{}.windowUpdate(id, maxID) }},
		{"data before headers", func(id uint32) script { return script{}.data(id, false, message(1)) }},
		{"no status", func(id uint32) script { return script{}.headers(id, false, block("a", "b")) }},
		{"priority on itself", func(id uint32) script { return script{}.priority(id, id) }},
		{"two responses", func(id uint32) script {
			return script{}.headers(id, false, answerHead()).headers(id, false, answerHead())
		}},
		{"content-length mismatch", func(id uint32) script {
			return script{}.headers(id, false, answerHead("content-length", "3")).data(id, true, message(10))
		}},
	}
	backends := settleAll(t, len(answers))
	r := newRig(t, nodeConfig{}, backends...)
	for i, f := range answers {
		backends[i].become(manners{head: func(p *peer, id uint32) { p.write(f.answer(id)) }}, nil)
		tr := r.begin("made you reset by a backend: " + f.name)
		caller := r.dial(manners{})
		head, body := grpcHead(backends[i].authority, hold), message(10)
		for range maxBegun {
			if a := caller.call(head, body); a.status() != "13" && a.status() != "14" {
				t.Fatalf("%s: the caller got %v, want status 13 or 14", f.name, &a)
			}
		}
		tr.expect(closed("upstream", "resets"), 1)
		caller.close()
		backends[i].leave()
		tr.judge(cost{cpu: time.Second})
	}
}

// A client that sends more than its windows let it is reset, and counted.
func TestA05DataBeyondTheWindow(t *testing.T) {
	backend := settle(t)
	r := newRig(t, nodeConfig{}, backend)
	backend.become(manners{settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}}, nil)
	tr := r.begin("data beyond the window")
	p := r.dial(manners{})
	for i := range uint32(300) {
		id := 2*i + 1
		if p.write(script{}.headers(id, false, grpcHead(evil, hold)).times(5, script{}.data(id, false, make([]byte, maxFrame)))) != nil {
			break
		}
	}
	tr.farewell(p, calm)
	tr.expect(closed("downstream", "resets"), 1)
	tr.judge(cost{memory: 32 << 20})
}

// So is a backend, by callers who take nothing: none of its window comes back.
func TestA05DataBeyondTheWindowByABackend(t *testing.T) {
	backend := settle(t)
	r := newRig(t, nodeConfig{}, backend)
	backend.become(manners{head: func(p *peer, id uint32) {
		p.write(script{}.headers(id, false, answerHead()).times(3, script{}.data(id, false, make([]byte, maxFrame))))
	}}, nil)
	tr := r.begin("data beyond the window by a backend")
	for range 3 {
		p := r.dial(manners{settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}})
		for range maxAtOnce {
			p.open(true, grpcHead(evil, hold))
		}
		p.await(patience, func() bool { return p.frames[http2.FrameHeaders] >= maxAtOnce })
		p.write(script{}.windowUpdate(1, 1<<20))
		// 14 where the connection ends for the others' sake first.
		if a := p.result(1, patience); a.status() != "13" && a.status() != "14" {
			t.Errorf("once it takes what came, the caller got %v, want status 13 or 14", &a)
		}
		p.close()
	}
	tr.expect(closed("upstream", "resets"), 1)
	tr.judge(cost{cpu: time.Second})
}

// What a backend has open at once is counted by frames here: the gateway gives a
// place to the next stream when it has told the backend of the reset, not before.
func TestA04BackendHasNoMoreThanTheClientMay(t *testing.T) {
	backend := settle(t)
	r := newRigHere(t, nodeConfig{}, backend)
	var open, peak atomic.Int64
	backend.become(manners{
		head: func(_ *peer, id uint32) { peak.Store(max(peak.Load(), open.Add(1))) },
		gone: func(_ *peer, id uint32) { open.Add(-1) },
	}, nil)
	p := r.dial(manners{})
	for range maxAtOnce {
		p.open(false, grpcHead(evil, hold))
	}
	if !eventually(patience, func() bool { return open.Load() == maxAtOnce }) {
		t.Fatalf("backend has %d streams, want %d", open.Load(), maxAtOnce)
	}
	var s script
	for i := range uint32(150) {
		id := 2*maxAtOnce + 4*i + 1
		s = s.headers(id, false, grpcHead(evil, hold)) // refused
		s = s.reset(2*(i%maxAtOnce)+1, http2.ErrCodeCancel)
		s = s.headers(id+2, false, grpcHead(evil, hold))
		if i >= maxAtOnce {
			s = s.reset(2*maxAtOnce+4*(i-maxAtOnce)+3, http2.ErrCodeCancel)
		}
	}
	p.write(s.ping())
	p.await(patience, func() bool { return p.acks > 0 || p.over })
	if !eventually(patience, func() bool { return open.Load() <= maxAtOnce }) || peak.Load() != maxAtOnce {
		t.Errorf("backend had %d streams at once, want %d", peak.Load(), maxAtOnce)
	}
}
