package h2

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// wide are settings of a client whose streams have all the window they want.
var wideWindows = http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}

// greetedWide is a client that windows never stop.
func greetedWide(t testing.TB) *peer {
	t.Helper()
	p := greetedServer(t, Limits{}, wideWindows)
	p.writeWindowUpdate(0, 1<<30)
	return p
}

// order returns which streams the DATA frames belong to, one letter each.
func order(frames []debugFrame) string {
	var s strings.Builder
	for _, f := range frames {
		if d, ok := f.(debugData); ok {
			s.WriteByte('a' + byte(d.id/2))
		}
	}
	return s.String()
}

// Streams take turns, a frame of 16 KiB each.
func TestConnSendsStreamsInTurn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{}, wideWindows)
		blocker := p.request(9, true)
		sendData(blocker, strings.Repeat("x", 65535), true) // the connection's window
		p.skipFrames()
		for i := range 4 {
			sendData(p.request(uint32(2*i+11), true), strings.Repeat("x", (i+1)*20_000), true)
		}
		p.wantIdle("the connection has no window")
		p.writeWindowUpdate(0, 1<<30)
		if got, want := order(p.skipFrames()), "fghifghighihii"; got != want {
			t.Errorf("streams were sent in the order %s, want %s", got, want)
		}
	})
}

// While the socket takes nothing, a bulk stream does not get ahead of the others,
// nor do many short ones get ahead of it.
func TestConnSharesASocketThatIsFull(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedWide(t)
		p.wantIdle("windows are wide")
		p.nc.in.setRoom(0)
		bulk := p.request(1, true)
		sendData(bulk, strings.Repeat("b", 1<<20), false)

		// Many short answers, on new streams each, as fast as the socket takes them.
		const step = 32 << 10
		moved, short, id := 0, 0, uint32(3)
		for range 64 {
			for range 8 {
				sendHeader(p.request(id, true), false, ":status: 200")
				sendData(p.stream(id), strings.Repeat("s", step/8), true)
				id += 2
			}
			p.nc.in.setRoom(step)
			synctest.Wait()
			in, _ := p.nc.in.take(-1)
			p.nc.in.setRoom(0)
			p.in.Write(in)
			for wholeFrame(p.in.Bytes()) {
				f, err := p.frames.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				switch f := debugOf(f).(type) {
				case debugData:
					if f.id == 1 {
						moved += len(f.data)
					} else {
						short += len(f.data)
					}
				}
			}
		}
		// What was in the output before there was any contest does not count. The
		// bulk stream is one of many, and its frames are four times as long.
		if moved -= outputHigh; moved < short/16 || short < moved {
			t.Errorf("a bulk stream moved %d bytes beside short ones of together %d", moved, short)
		}
	})
}

// A stream that its peer has stalled delays no frame of others.
func TestConnPassesStalledStreamsBy(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		p.writeWindowUpdate(0, 1<<30)
		for i := range 50 {
			sendData(p.request(uint32(2*i+1), true), strings.Repeat("x", 100_000), false)
		}
		p.wantIdle("no stream has a window")
		s := p.request(101, true)
		p.writeWindowUpdate(101, 4)
		sendHeader(s, false, ":status: 200")
		sendData(s, "fast", false)
		sendHeader(s, true, "grpc-status: 0")
		p.wantFrame("50 stalled streams are nothing to this one",
			debugHeaders{101, ":status: 200", false}, debugData{101, "fast", false}, debugHeaders{101, "grpc-status: 0", true})
		p.writePing("alive")
		p.wantFrame("nor to a ping", debugPingAck{"alive"})
	})
}

// A client that does not read delays nobody else: neither the backend's connection,
// which it shares, nor other clients. It is heard itself.
func TestConnIsNotDelayedByAnother(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		stalled, backend := newSplicedPeers(t, Limits{})
		healthy := newPeerBeside(stalled)
		const window = 16 << 10 // of a backend's stream
		stalled.writeRequest(1, true)
		backend.wantFrame("a request", debugHeaders{1, strings.Join(requestLines(), ", "), true})
		stalled.nc.in.setRoom(0)
		backend.writeResponse(1, false)
		backend.writeData(1, strings.Repeat("x", window), false)
		backend.wantIdle("the stalled client has taken nothing")
		for i := range 20 {
			id, up := uint32(2*i+1), uint32(4*i+3)
			healthy.writeRequest(id, true)
			backend.wantFrame("a request", debugHeaders{up, strings.Join(requestLines(), ", "), true})
			backend.writeResponse(up, false)
			backend.writeData(up, "answer", false)
			backend.writeHeaders(up, true, "grpc-status: 0")
			healthy.wantFrame("its answer",
				debugHeaders{id, ":status: 200", false}, debugData{id, "answer", false}, debugHeaders{id, "grpc-status: 0", true})
			stalled.writeRequest(id+2, true)
			backend.wantFrame("the stalled client is heard", debugHeaders{up + 2, strings.Join(requestLines(), ", "), true})
			backend.writeReset(up+2, http2.ErrCodeInternal)
		}
		stalled.nc.in.setRoom(pipeRoom)
		stalled.wantFrame("what waited", debugHeaders{1, ":status: 200", false}, debugData{1, strings.Repeat("x", window), false})
		backend.wantFrame("credit for it", debugWindowUpdate{1, window + 3*window})
	})
}

// newPeerBeside is another client of the same relay.
func newPeerBeside(other *peer) *peer {
	other.t.Helper()
	ours, theirs := newMemoryConns(pipeRoom)
	p := newPeer(other.t, other.eng, theirs, newRecorder())
	p.run(p.eng.NewServer(NewTransport(ours, nil), other.conn.acceptor, time.Now()))
	p.greet()
	return p
}

// Replies and headers do not wait for the DATA of others.
func TestConnSendsControlFramesFirst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedWide(t)
		p.wantIdle("windows are wide")
		bulk := p.request(1, true)
		p.nc.in.setRoom(0)
		sendData(bulk, strings.Repeat("x", 2<<20), false)
		p.writePing("waits")
		sendHeader(p.request(3, true), true, ":status: 200")
		synctest.Wait()
		p.nc.in.setRoom(pipeRoom)
		for i, want := range []debugFrame{debugPingAck{"waits"}, debugHeaders{3, ":status: 200", true}} {
			before := 0
			for _, f := range p.skipUntil("a small frame", want) {
				before += len(f.(debugData).data)
			}
			if i == 0 && before > 2*outputHigh {
				t.Errorf("%v came after %d bytes of DATA, want at most %d", want, before, 2*outputHigh)
			}
			if i == 1 && before > 0 {
				t.Errorf("%v came after %d bytes of DATA more", want, before)
			}
		}
	})
}

// One wake-up is one write, however many frames it brings.
func TestConnWritesOncePerWakeUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		p.rec.onOpen = func(s *Stream, h *Head, b *Batch) {
			s.SendHeader(engineFields(":status: 200"), false, b)
			s.SendData([]byte("answer"), false, b)
			s.SendHeader(engineFields("grpc-status: 0"), true, b)
		}
		var requests []byte
		for i := range 50 {
			requests = appendFrameHeader(requests, 0, typeHeaders, flagEndHeaders|flagEndStream, uint32(2*i+1))
			block := p.encode(requestLines()...)
			appendFrameHeader(requests[:len(requests)-frameHeaderLen], len(block), typeHeaders, flagEndHeaders|flagEndStream, uint32(2*i+1))
			requests = append(requests, block...)
		}
		p.wantIdle("nothing yet")
		before := p.nc.in.written()
		p.writeRaw(requests)
		p.pull()
		if n := p.nc.in.written() - before; n != 1 {
			t.Errorf("50 requests were answered by %d writes, want 1", n)
		}
		if n := len(p.skipFrames()); n != 150 {
			t.Errorf("%d frames were sent, want 150", n)
		}
	})
}

// A connection that has nothing to send and nothing to read holds no buffer.
func TestConnHoldsNoBufferWhileIdle(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		s := p.request(1, false)
		p.writeData(1, "x", true)
		sendHeader(s, true, ":status: 200")
		p.skipFrames()
		c := p.conn
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.out != nil || c.box != nil || c.scratch != nil || len(c.streams) != 0 || c.block.buf != nil {
			t.Errorf("an idle connection holds output %d, scratch %v, streams %v, block %d", cap(c.out), c.scratch, c.streams, cap(c.block.buf))
		}
	})
}

// The queue of a stream counts until its last byte is gone.
func TestConnQueuesWhatDoesNotFit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		s := p.request(1, true)
		sendData(s, strings.Repeat("x", 65535+1000), true)
		p.skipFrames()
		if got := s.Pending(); got != 1000 || p.eng.Queued() != 1000 {
			t.Errorf("%d bytes wait in the stream, %d in the engine; want 1000", got, p.eng.Queued())
		}
		p.writeWindowUpdate(0, 1000)
		p.wantIdle("the stream's window is used up as well")
		p.writeWindowUpdate(1, 1000)
		p.wantFrame("the rest", debugData{1, strings.Repeat("x", 1000), true})
		if p.eng.Queued() != 0 {
			t.Errorf("%d bytes wait in the engine", p.eng.Queued())
		}
	})
}

func TestConnSendsAnythingInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedWide(t)
		s := p.request(1, true)
		want := new(strings.Builder)
		for i := range 2000 {
			chunk := fmt.Sprintf("%d,", i) + strings.Repeat("-", i%900)
			want.WriteString(chunk)
			if i%100 == 0 {
				p.nc.in.setRoom(0)
			}
			sendData(s, chunk, false)
			if i%100 == 50 {
				p.nc.in.setRoom(pipeRoom)
			}
		}
		p.nc.in.setRoom(pipeRoom)
		sendHeader(s, true, "grpc-status: 0")
		var got strings.Builder
		frames := p.skipFrames()
		for _, f := range frames[:len(frames)-1] {
			got.WriteString(f.(debugData).data)
		}
		if got.String() != want.String() {
			t.Errorf("%d bytes came, %d were sent, or in another order", got.Len(), want.Len())
		}
		if f, ok := frames[len(frames)-1].(debugHeaders); !ok || !f.end {
			t.Errorf("the last frame is %v, want trailers", frames[len(frames)-1])
		}
	})
}

// What waits for a peer that broke the rules is dropped before it gets its GOAWAY.
func TestConnDropsWhatWaitsForAPeerThatBreaksTheRules(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		s, other := p.request(1, true), p.request(3, true)
		sendData(s, strings.Repeat("x", 1000), false)
		sendHeader(s, true, "grpc-status: 0")
		sendData(other, strings.Repeat("x", 10), false)
		p.wantFrame("as much as there is window", debugData{1, "xxxxxxxxxx", false}, debugData{3, "xxxxxxxxxx", false})
		p.rec.skip()
		p.writeWindowUpdate(0, 0)
		p.wantFrame("a fault", debugGoAway{3, http2.ErrCodeProtocol})
		if n := p.eng.Queued(); n != 0 {
			t.Errorf("%d bytes wait for a connection that is at its end", n)
		}
		sendData(s, "late", false)
		sendData(other, "late", false)
		p.nc.CloseWrite()
		p.wantClosed("a fault", ReasonProtocol)
		p.rec.wantUnordered(t, "streams end with their connection",
			"ended 1 connection lost NO_ERROR", "ended 3 connection lost NO_ERROR")
	})
}
