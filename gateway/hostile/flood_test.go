package hostile

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway"
)

// flood is an attack that is the same bytes from a client and from a backend, on
// stream 1, which is open, or on none.
type flood struct {
	name   string
	piece  script
	pieces int // at most, of which a few suffice
	deaf   bool
	reason string
	or     string // another reason that is as good: which limit is met first depends on timing
	code   string // of the GOAWAY; "" means calm down
	cost   cost
	// answered lets a backend send its response header first.
	answered bool
}

const calm = "ENHANCE_YOUR_CALM"

// floods runs each attack from either side of one gateway.
func floods(t *testing.T, cfg nodeConfig, list ...flood) {
	backends := settleAll(t, len(list))
	r := newRig(t, cfg, backends...)
	for i, f := range list {
		if f.code == "" {
			f.code = calm
		}
		f.fromClient(r)
		f.fromBackend(r, backends[i])
	}
}

// settleAll starts n raw backends: the gateway is slow to come back to one that
// ends every connection, so each attack has its own.
func settleAll(t *testing.T, n int) (list []*village) {
	for range n {
		list = append(list, settle(t))
	}
	return list
}

func (f flood) manners() manners {
	if f.deaf {
		return manners{deaf: true, receive: 1024}
	}
	return manners{}
}

func (f flood) fromClient(r *rig) {
	r.t.Helper()
	tr := r.begin(f.name + " from a client")
	p := r.dial(f.manners())
	p.open(false, grpcHead(good, hold))
	p.flood(f.piece, f.pieces)
	if !f.deaf {
		tr.farewell(p, f.code)
	}
	tr.expectEither(closed("downstream", f.reason), closed("downstream", f.or), 1)
	p.close()
	tr.judge(f.cost)
	f.again(r)
}

// again keeps the attack up for a while, one connection after the other, and asks
// the bystander only.
func (f flood) again(r *rig) {
	r.t.Helper()
	start := time.Now()
	n := 0
	for ; time.Since(start) < pick(150*time.Millisecond, 10*time.Second); n++ {
		p, err := dialPeer(r.addr, f.manners())
		if err != nil {
			r.t.Fatal(err)
		}
		p.open(false, grpcHead(good, hold))
		p.flood(f.piece, f.pieces)
		p.close()
	}
	r.bystander(f.name+" again and again", n, start)
}

// bystander checks O1 over the time since an attack began.
func (r *rig) bystander(name string, attackers int, since time.Time) {
	r.t.Helper()
	end := time.Now()
	<-time.After(2 * probeEvery)
	g := r.probe.between(since, end)
	r.t.Logf("%s: %d attackers in %v; bystander: %v", name, attackers, end.Sub(since).Round(time.Millisecond), g)
	if len(g.faults) > 0 || g.p99 > lateness() {
		r.t.Errorf("%s: O1: bystander saw %v; first fault %q; limit of p99 %v", name, g, slices.Concat(g.faults, []string{""})[0], lateness())
	}
}

// farewell checks what an attacker was told at the end, and lets it go.
func (tr *trial) farewell(p *peer, want string) {
	tr.t.Helper()
	if !p.ended(patience) {
		tr.t.Errorf("%s: O4: connection is still open", tr.name)
	}
	if code, detail := p.farewell(); code != want {
		tr.t.Errorf("%s: O4: GOAWAY with %q (%s), want %q", tr.name, code, printable(detail), want)
	}
	p.close()
}

func (f flood) fromBackend(r *rig, backend *village) {
	r.t.Helper()
	attacker := make(chan *peer, 100)
	tr := r.begin(f.name + " from a backend")
	backend.become(f.manners(), func(p *peer) {
		if !f.deaf {
			if _, ok := p.stream(0); !ok {
				return
			}
		}
		if f.answered {
			p.write(script{}.headers(1, false, answerHead()))
		}
		p.flood(f.piece, f.pieces)
		attacker <- p
	})
	caller := r.dial(manners{})
	a := caller.call(grpcHead(backend.authority, hold), message(10))
	if code := a.status(); code != "14" && code != "13" {
		r.t.Errorf("%s: the caller got %v, want status 14 or 13", tr.name, &a)
	}
	if !f.deaf {
		select {
		case p := <-attacker:
			tr.farewell(p, f.code)
		case <-time.After(patience):
			r.t.Errorf("%s: the backend was not asked for anything", tr.name)
		}
	}
	tr.expectEither(closed("upstream", f.reason), closed("upstream", f.or), 1)
	backend.leave()
	caller.close()
	tr.judge(f.cost)
}

// cut is what a flood costs that is ended by a count.
var cut = cost{cpu: 50e6, memory: 32 << 20}

func TestA01PingFlood(t *testing.T) {
	piece := script{}.times(3500, script{}.ping())
	pongs := script{}.times(3500, script{}.frame(http2.FramePing, ack, 0, make([]byte, 8)...))
	n := pick(30, 300)
	floods(t, nodeConfig{},
		flood{name: "pings", piece: piece, pieces: n, reason: "pings", or: "queued_control", cost: cut},
		flood{name: "unread pings", piece: piece, pieces: n, deaf: true, reason: "pings", or: "queued_control", cost: cut},
		flood{name: "ping acks", piece: pongs, pieces: n, reason: "pings", cost: cut},
	)
}

func TestA02SettingsFlood(t *testing.T) {
	piece := script{}.times(6500, script{}.settings())
	acks := script{}.times(6500, script{}.settingsAck())
	one := script{}.times(3500, script{}.settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}).
		settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535}))
	long := script{}.settings(make([]http2.Setting, 101)...)
	n := pick(20, 150)
	floods(t, nodeConfig{},
		flood{name: "settings", piece: piece, pieces: n, reason: "settings", or: "queued_control", cost: cut},
		flood{name: "unread settings", piece: piece, pieces: n, deaf: true, reason: "settings", or: "queued_control", cost: cut},
		flood{name: "settings acks", piece: acks, pieces: n, reason: "settings", cost: cut},
		flood{name: "window to and fro", piece: one, pieces: n, reason: "settings", or: "queued_control", cost: cut},
		flood{name: "long settings", piece: long, pieces: 1, reason: "settings", cost: cut},
	)
}

// A peer that reads its replies is cut by the count of what it asks, not by what
// waits for it.
func TestA01A02LimitIsExact(t *testing.T) {
	for _, test := range []struct {
		reason string
		frame  script
		reply  http2.FrameType
		first  int // replies before the flood
	}{
		{"pings", script{}.ping(), http2.FramePing, 0},
		{"settings", script{}.settings(), http2.FrameSettings, 2}, // the gateway's own, and its ack of ours
	} {
		r := newRig(t, nodeConfig{})
		tr := r.begin(test.reason + " in step")
		p := r.dial(manners{})
		want := test.first
		p.await(patience, func() bool { return p.frames[test.reply] >= want })
		const step = 200
		for range 10 {
			if p.flood(script{}.times(step, test.frame), 1) {
				break
			}
			want += step
			p.await(patience, func() bool { return p.frames[test.reply] >= want || p.over })
		}
		tr.farewell(p, calm)
		tr.expect(closed("downstream", test.reason), 1)
		if got := p.count(test.reply); got > 1010 || got < 900 {
			t.Errorf("%d replies before the end, want about 1000", got)
		}
		tr.judge(cost{})
	}
}

func TestA06EmptyFrames(t *testing.T) {
	cont := script{}.frame(http2.FrameHeaders, 0, 1).frame(http2.FrameContinuation, endHeaders, 1)
	n := pick(20, 150)
	floods(t, nodeConfig{},
		flood{name: "empty data", piece: script{}.times(6500, script{}.data(1, false, nil)), pieces: n, answered: true, reason: "empty_frames", cost: cut},
		flood{name: "empty data with padding", piece: script{}.times(3500, script{}.frame(http2.FrameData, http2.FlagDataPadded, 1, 3, 0, 0, 0)), pieces: n, answered: true, reason: "empty_frames", cost: cut},
		flood{name: "empty headers", piece: script{}.times(3500, cont), pieces: n, answered: true, reason: "empty_frames", or: "resets", cost: cut},
	)
}

func TestA08ContinuationFlood(t *testing.T) {
	start := func(p ...byte) script { return script{}.frame(http2.FrameHeaders, 0, 1, p...) }
	huffman := append([]byte{0x00, 0x81, 0x1f}, integer(nil, 7, 0x80, 16000)...)
	n := pick(20, 1000)
	floods(t, nodeConfig{},
		flood{name: "continuations of a byte", piece: start(0x82).times(6500, script{}.frame(http2.FrameContinuation, 0, 1, 0x82)), pieces: n, reason: "continuations", cost: cut},
		flood{name: "empty continuations", piece: start(0x82).times(6500, script{}.frame(http2.FrameContinuation, 0, 1)), pieces: n, reason: "continuations", or: "empty_frames", cost: cut},
		flood{name: "continuations in huffman", piece: start(huffman...).times(40, script{}.frame(http2.FrameContinuation, 0, 1, make([]byte, maxFrame)...)), pieces: n, reason: "continuations", cost: cut},
	)
}

// A header section that has begun has to end, within the time that a connection
// has for its beginning.
func TestA08HeaderSectionThatNeverEnds(t *testing.T) {
	cfg := limits(func(c *gateway.Config) { c.Limits.Preface = pick(time.Second, 5*time.Second) })
	backend := settle(t)
	r := newRig(t, cfg, backend)
	part := script{}.frame(http2.FrameHeaders, 0, 1, 0x82)

	tr := r.begin("unfinished section from a client")
	p := r.dial(manners{first: script{}.preface().settings().settingsAck().ping()})
	p.await(patience, func() bool { return p.acks > 0 })
	p.write(part)
	tr.expect(closed("downstream", "continuations"), 1)
	tr.farewell(p, calm)
	tr.judge(cost{})

	tr = r.begin("unfinished section from a backend")
	backend.become(manners{}, func(p *peer) {
		if _, ok := p.stream(0); ok {
			p.write(part)
		}
	})
	caller := r.dial(manners{})
	if a := caller.call(grpcHead(evil, hold), message(10)); a.status() != "14" {
		t.Errorf("the caller got %v, want status 14", &a)
	}
	tr.expect(closed("upstream", "continuations"), 1)
	backend.leave()
	caller.close()
	tr.judge(cost{})
}

func TestA13PriorityFlood(t *testing.T) {
	n := pick(20, 300)
	update := script{}.frame(0x10, 0, 0, 0, 0, 0, 1, 'u', '=', '1') // PRIORITY_UPDATE, RFC 9218 section 7.1
	floods(t, nodeConfig{},
		flood{name: "priority", piece: script{}.times(4500, script{}.priority(1, 3)), pieces: n, reason: "priorities", cost: cut},
		flood{name: "priority of idle streams", piece: script{}.times(4500, script{}.priority(5, 3)), pieces: n, reason: "priorities", cost: cut},
		flood{name: "priority updates", piece: script{}.times(4000, update), pieces: n, reason: "unknown_frames", cost: cut},
		flood{name: "unknown frames", piece: script{}.times(3000, script{}.frame(0xfa, 0xff, 1, make([]byte, 8)...)), pieces: n, reason: "unknown_frames", cost: cut},
		flood{name: "goaways", piece: script{}.times(3000, script{}.goAway(maxID, http2.ErrCodeNo)), pieces: n, reason: "unknown_frames", cost: cut},
	)
}

// maxID is the highest stream id.
const maxID = 1<<31 - 1

func TestA15WindowUpdateFlood(t *testing.T) {
	n := pick(20, 300)
	floods(t, nodeConfig{},
		flood{name: "window updates", piece: script{}.times(5000, script{}.windowUpdate(1, 1)), pieces: n, reason: "window_updates", cost: cut},
		flood{name: "window updates of the connection", piece: script{}.times(5000, script{}.windowUpdate(0, 1)), pieces: n, reason: "window_updates", cost: cut},
		flood{name: "window overflow of the connection", piece: script{}.windowUpdate(0, maxID), pieces: 1, reason: "flow_control", code: "FLOW_CONTROL_ERROR", cost: cut},
		flood{name: "window update of nothing", piece: script{}.windowUpdate(0, 0), pieces: 1, reason: "protocol", code: "PROTOCOL_ERROR", cost: cut},
	)
}
