package h2

import (
	"context"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func TestEngineCounts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		eng := NewEngine(Limits{})
		p := newServerPeerOn(t, eng, newRecorder())
		p.greet()
		p.request(1, false)
		before := eng.Counts(Downstream)
		if before.Open != 1 || before.Opened != 1 || before.Streams != 1 || len(eng.Conns(Downstream)) != 1 || len(eng.Conns(Upstream)) != 0 {
			t.Errorf("counts %+v; want one connection with one stream", before)
		}
		p.writePing("x")
		p.wantFrame("a reply", debugPingAck{"x"})
		after := eng.Counts(Downstream)
		if in, out := after.BytesIn-before.BytesIn, after.BytesOut-before.BytesOut; in != 17 || out != 17 {
			t.Errorf("a PING took %d bytes in and %d out, want 17 and 17", in, out)
		}
	})
}

func TestEngineEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	eng := NewEngine(Limits{})
	if err := eng.Run(ctx); err != nil {
		t.Errorf("Run() = %v, want nil when its context is done", err)
	}
	if eng.Wheel() == nil {
		t.Error("an engine has no wheel")
	}
}

// Abort ends the connections of one side, and those that begin later, and leaves
// the other side alone.
func TestEngineAbortsOneSide(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		eng := NewEngine(Limits{})
		client, backend := newServerPeerOn(t, eng, newRecorder()), newClientPeerOn(t, eng, newRecorder())
		client.greet()
		backend.greet()
		client.request(1, false)
		eng.Abort(Downstream)
		client.wantEnded("aborted", ReasonClosed)
		client.rec.want(t, "aborted", "ended 1 connection lost NO_ERROR")
		backend.wantIdle("the other side goes on")

		late := newServerPeerOn(t, eng, newRecorder())
		late.writePreface()
		if !late.ended() || late.err != nil {
			t.Errorf("a connection that comes late: ended %v, %v", late.ended(), late.err)
		}
		<-late.conn.Done()
		if n := eng.Counts(Downstream).Opened; n != 1 {
			t.Errorf("%d connections were counted, want 1", n)
		}
	})
}

// A budget that is spent by nobody who could be ended is let be.
func TestEngineShedsNobodyWithoutQueue(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		eng := NewEngine(Limits{QueueBudget: 1})
		p := newServerPeerOn(t, eng, newRecorder())
		p.greet()
		p.request(1, false)
		eng.queued.Add(100)
		pass(3 * sweepEvery)
		p.wantIdle("there is no queue")
		eng.queued.Add(-100)
	})
}

func TestConnOpensOnlyWhenNobodyIsAtWork(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		var s Stream
		var b Batch
		o := Opening{Fields: engineFields(requestLines()...), End: true, Sink: p.rec}
		p.conn.mu.Lock()
		if err := p.conn.TryOpen(&s, &o, &b); err != ErrBusy {
			t.Errorf("opening while somebody is at work: %v, want %v", err, ErrBusy)
		}
		p.conn.mu.Unlock()
		if err := p.conn.TryOpen(&s, &o, &b); err != nil {
			t.Error(err)
		}
		b.Flush()
		p.wantFrame("opened", debugHeaders{1, strings.Join(requestLines(), ", "), true})
	})
}

func TestFieldSaysWhatItIs(t *testing.T) {
	for _, tt := range []struct {
		name, value             string
		pseudo, hop, forwarding bool
	}{
		{":path", "/", true, false, false},
		{":authority", "x", true, false, false},
		{"te", "trailers", false, true, false},
		{"host", "x", false, true, false},
		{"grpc-timeout", "1S", false, true, false},
		{"x", "y", false, false, false},
		{"grpc-status", "0", false, false, false},
		{"forwarded", "for=x", false, false, true},
		{"x-forwarded-for", "192.0.2.1", false, false, true},
		{"x-forwarded-host", "x", false, false, true},
		{"x_forwarded_for", "x", false, false, true},
		{"x-forwarded_proto", "x", false, false, true},
		{"x_forwarded-anything", "x", false, false, true},
		{"x-real-ip", "x", false, false, true},
		{"x_real_ip", "x", false, false, true},
		{"x-real_ip", "x", false, false, true},
		{"x_real-ip", "x", false, false, true},
		{"x-forwarder-for", "x", false, false, false},
		{"x.forwarded.for", "x", false, false, false},
		{"x-real-ipv6", "x", false, false, false},
	} {
		for _, f := range []Field{IndexedField(tt.name, tt.value), LiteralField(tt.name, tt.value)} {
			if f.Pseudo() != tt.pseudo || f.Hop() != tt.hop || f.Forwarding() != tt.forwarding || f.Sensitive() {
				t.Errorf("%s: pseudo %v, hop %v, forwarding %v, sensitive %v", tt.name, f.Pseudo(), f.Hop(), f.Forwarding(), f.Sensitive())
			}
		}
	}
}

// A literal field leaves the peer's table to others.
func TestFieldStaysLiteral(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		s := p.request(1, true)
		var b Batch
		s.SendHeader([]Field{IndexedField(":status", "200"), LiteralField("x-once", "1"), IndexedField("x-often", "2")}, true, &b)
		b.Flush()
		p.wantFrame("as given", debugHeaders{1, ":status: 200, x-once: 1, x-often: 2", true})
		if live := p.conn.enc.table.fields; len(live) != 1 || live[0].Name != "x-often" {
			t.Errorf("the table holds %v, want x-often only", live)
		}
	})
}

// What must never be indexed is so at the next hop, in both directions (RFC 7541
// section 7.1.3).
func TestSpliceKeepsNeverIndexedFields(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		client, backend := newSplicedPeers(t, Limits{})
		for i := range uint32(3) { // the second and third time they might come from a table
			id := 2*i + 1
			request := append(requestLines(), "!authorization: Bearer x", "plain: 1", "!plain: 2")
			client.writeHeaders(id, false, request...)
			client.writeHeaders(id, true, "!x-secret: 3")
			backend.wantFrame("a request", debugHeaders{id, strings.Join(request, ", "), false}, debugHeaders{id, "!x-secret: 3", true})
			backend.writeHeaders(id, false, ":status: 200", "!set-cookie: a=b")
			backend.writeHeaders(id, true, "!grpc-status-details-bin: AA", "grpc-status: 0")
			client.wantFrame("a response",
				debugHeaders{id, ":status: 200, !set-cookie: a=b", false},
				debugHeaders{id, "!grpc-status-details-bin: AA, grpc-status: 0", true})
		}
	})
}

func TestPingIsNeverSentWhereItIsUnwelcome(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		if p.conn.ProbesUnwelcome() {
			t.Error("unwelcome before anybody complained")
		}
		p.conn.NeverProbe()
		for range 3 {
			pass(time.Hour / 2)
			s := p.open(true, requestLines()...)
			if sentPing(p) {
				t.Error("a PING was sent")
			}
			p.writeResponse(s.ID(), true)
		}
		p.opened(false)
		q := greetedClient(t, Limits{})
		q.opened(false)
		q.writeGoAway(1, http2.ErrCodeEnhanceYourCalm, "too_many_pings")
		q.ended()
		if !p.conn.ProbesUnwelcome() || !q.conn.ProbesUnwelcome() {
			t.Error("a complaint is not remembered")
		}
	})
}
