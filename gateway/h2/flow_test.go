package h2

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

// Credit of the connection comes back on receipt, whatever becomes of the bytes:
// padding, streams that nobody reads, streams that are gone.
func TestFlowReturnsConnectionCreditOnReceipt(t *testing.T) {
	const quarter = 16 << 10
	for _, side := range sides {
		for _, tt := range []struct {
			name  string
			begin func(p *peer, s *Stream)
			write func(p *peer, id uint32, n int) // n bytes of flow control
		}{
			{"that nobody reads", nil, func(p *peer, id uint32, n int) {
				p.writeData(id, strings.Repeat("x", n), false)
			}},
			{"of padding", nil, func(p *peer, id uint32, n int) {
				p.out.WriteDataPadded(id, false, []byte("x"), make([]byte, n-2))
			}},
			{"of a stream that we have reset", func(p *peer, s *Stream) {
				reset(s, http2.ErrCodeCancel)
				p.wantFrame("a reset", debugReset{s.ID(), http2.ErrCodeCancel})
			}, func(p *peer, id uint32, n int) {
				p.writeData(id, strings.Repeat("x", n), false)
			}},
		} {
			t.Run(tt.name+"/"+side.String(), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					p := greetedEither(t, side, Limits{ConnWindow: 4 * quarter})
					p.rec.quiet = true
					for i := range 3 {
						var s *Stream
						if side == Upstream {
							s = p.opened(false)
							p.writeResponse(s.ID(), false)
						} else {
							s = p.request(uint32(2*i+1), false)
						}
						if tt.begin != nil {
							tt.begin(p, s)
						}
						for range 81 {
							tt.write(p, s.ID(), 200)
						}
						for f := p.next(); f != nil; f = p.next() {
							if w, ok := f.(debugWindowUpdate); !ok || w.id == 0 {
								t.Fatalf("got frame %v before a quarter of the window was used", f)
							}
						}
						tt.write(p, s.ID(), quarter-81*200)
						p.skipUntil("a quarter of the window was used", debugWindowUpdate{0, quarter})
					}
				})
			})
		}
	}
}

// Streams that nobody reads never stop the others on their connection.
func TestFlowOfStalledStreamsLeavesRoom(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		p.rec.quiet = true
		var granted, used int
		granted = int(p.eng.limits.ConnWindow)
		for i := range 90 {
			id := uint32(2*i + 1)
			p.writeRequest(id, false)
			for range 4 {
				p.writeData(id, strings.Repeat("x", 16384), false)
				used += 16384
			}
			for _, f := range p.skipFrames() {
				w, ok := f.(debugWindowUpdate)
				if !ok || w.id != 0 {
					t.Fatalf("got frame %v: credit of a stream that nobody reads", f)
				}
				granted += int(w.n)
			}
			if left := granted - used; left < int(p.eng.limits.ConnWindow)/2 {
				t.Fatalf("with %d streams stalled the connection has %d bytes left", i+1, left)
			}
		}
	})
}

func TestFlowGrowsTheWindowOfAStreamThatIsRead(t *testing.T) {
	for _, tt := range []struct {
		side  Side
		sizes []uint32 // of the window, each filled to the half and read
	}{
		{Downstream, []uint32{64 << 10, 256 << 10, 1 << 20, 1 << 20, 1 << 20}},
		{Upstream, []uint32{16 << 10, 64 << 10, 256 << 10, 1 << 20, 1 << 20}},
	} {
		t.Run(tt.side.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedEither(t, tt.side, Limits{})
				s := openEither(p)
				for i, size := range tt.sizes[:len(tt.sizes)-1] {
					giveCredit(s, int32(size/2-1), true)
					p.wantIdle("less than half of the window")
					giveCredit(s, 1, true)
					p.wantFrame("half of the window, and growth", debugWindowUpdate{1, size/2 + tt.sizes[i+1] - size})
				}
				giveCredit(s, 512<<10, false)
				p.wantFrame("it has grown enough", debugWindowUpdate{1, 512 << 10})
				if got := p.eng.grown.Load(); got != int64(1<<20-tt.sizes[0]) {
					t.Errorf("%d bytes taken from the budget, want %d", got, 1<<20-tt.sizes[0])
				}
				reset(s, http2.ErrCodeCancel)
				if got := p.eng.grown.Load(); got != 0 {
					t.Errorf("%d bytes of the budget are kept by a stream that is gone", got)
				}
			})
		})
	}
}

func TestFlowKeepsTheWindowOfAStreamThatIsReadSlowly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		s := p.request(1, false)
		for range 5 {
			giveCredit(s, 32<<10, false) // more waits for the far side
			p.wantFrame("as much as was taken", debugWindowUpdate{1, 32 << 10})
		}
	})
}

func TestFlowGivesNoCreditToAStreamThatSendsNoMore(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(p *peer)
	}{
		{"ended", func(p *peer) { p.writeData(1, "", true) }},
		{"ended by trailers", func(p *peer) { p.writeHeaders(1, true, "x: y") }},
		{"reset", func(p *peer) { p.writeReset(1, http2.ErrCodeCancel) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedServer(t, Limits{})
				s := p.request(1, false)
				tt.end(p)
				p.ended()
				giveCredit(s, 1<<20, true)
				p.wantIdle("nobody would use it")
			})
		})
	}
}

// Padding is the engine's own to return: no sink ever sees it.
func TestFlowReturnsThePaddingOfAStream(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		p.request(1, false)
		for range 128 {
			p.out.WriteDataPadded(1, false, []byte("payload"), make([]byte, 255))
		}
		p.wantFrame("half of the window was padding", debugWindowUpdate{1, 128 * 256})
	})
}

func TestFlowWaitsForTheWindows(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3})
		s := p.request(1, true)
		sendHeader(s, false, ":status: 200")
		sendData(s, "abcdef", false)
		sendData(s, "gh", false)
		sendHeader(s, true, "grpc-status: 0")
		p.wantFrame("the window is 3", debugHeaders{1, ":status: 200", false}, debugData{1, "abc", false})
		p.wantIdle("trailers stand behind the data")
		p.writeWindowUpdate(1, 4)
		p.wantFrame("4 more", debugData{1, "defg", false})
		p.writeWindowUpdate(1, 1)
		p.wantFrame("the last of it, and what stood behind", debugData{1, "h", false}, debugHeaders{1, "grpc-status: 0", true})
		p.wantIdle("the stream is over")
	})
}

func TestFlowEndsAStreamWithoutWindow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		s := p.request(1, true)
		sendHeader(s, false, ":status: 200")
		sendData(s, "", true)
		p.wantFrame("an empty frame needs no window", debugHeaders{1, ":status: 200", false}, debugData{1, "", true})

		s = p.request(3, true)
		sendData(s, "x", false)
		sendData(s, "", true)
		p.wantIdle("the end stands behind the data")
		p.writeWindowUpdate(3, 1)
		p.wantFrame("the end comes with the data", debugData{3, "x", true})
	})
}

// Of what a stream was given, no more than its window is ever with us, and its
// sender gets credit only for what the far socket has taken.
func TestFlowPassesBackpressureThrough(t *testing.T) {
	for _, tt := range []struct {
		name   string
		upward bool // from the client to the backend
		window int
	}{{"client to backend", true, 64 << 10}, {"backend to client", false, 16 << 10}} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				client, backend := newSplicedPeers(t, Limits{})
				client.writeRequest(1, !tt.upward)
				backend.wantFrame("a request", debugHeaders{1, strings.Join(requestLines(), ", "), !tt.upward})
				from, to := client, backend
				if !tt.upward {
					backend.writeResponse(1, false)
					client.wantFrame("a response", debugHeaders{1, ":status: 200", false})
					from, to = backend, client
				}
				to.writeWindowUpdate(0, 1<<20)
				to.writeWindowUpdate(1, 1<<20)
				to.wantIdle("the windows are wide")
				to.nc.in.setRoom(0)
				chunk := tt.window / 8
				for i := range 8 {
					from.writeData(1, strings.Repeat(string(rune('a'+i)), chunk), false)
				}
				from.wantIdle("the far socket takes nothing")

				// A parcel of what fits, in pieces of the transport's.
				to.nc.in.setRoom(tt.window / 4)
				from.wantIdle("the far socket has taken a part of what it was offered at once")
				to.nc.in.setRoom(pipeRoom)
				granted := 0
				for _, f := range from.skipFrames() {
					granted += int(f.(debugWindowUpdate).n)
				}
				// The rest comes back when it is half of the window, which has grown.
				if granted -= 3 * tt.window; granted < tt.window/2 || granted > tt.window {
					t.Errorf("the far socket has taken all %d bytes, %d are given back", tt.window, granted)
				}
				for i := range 8 {
					to.wantFrame("what was sent", debugData{1, strings.Repeat(string(rune('a'+i)), chunk), false})
				}
			})
		})
	}
}

// The far side's window presses back as its socket does.
func TestFlowPassesWindowsThrough(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		client, backend := newSplicedPeers(t, Limits{})
		backend.writeSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
		backend.wantFrame("settings", debugSettingsAck{})
		client.writeRequest(1, false)
		backend.wantFrame("a request", debugHeaders{1, strings.Join(requestLines(), ", "), false})
		for range 4 {
			client.writeData(1, strings.Repeat("x", 16<<10), false)
		}
		backend.wantFrame("the backend's window", debugData{1, strings.Repeat("x", 1000), false})
		client.wantIdle("1000 bytes are less than half of the client's window")
		for range 31 {
			backend.writeWindowUpdate(1, 1000)
			backend.wantFrame("the backend's window", debugData{1, strings.Repeat("x", 1000), false})
		}
		client.wantIdle("32000 bytes are less than half of the client's window")
		backend.writeWindowUpdate(1, 1000)
		backend.wantFrame("the backend's window", debugData{1, strings.Repeat("x", 1000), false})
		client.wantFrame("half of the window; the far side is behind, so that it does not grow", debugWindowUpdate{1, 33_000})
		client.writeReset(1, http2.ErrCodeCancel)
		backend.wantFrame("a reset goes on", debugReset{1, http2.ErrCodeCancel})
		if n := client.eng.Queued(); n != 0 {
			t.Errorf("%d bytes wait for streams that are gone", n)
		}
	})
}

// A million single bytes towards a backend that is stalled are as many bytes in
// memory, not as many frames.
func TestFlowHoldsBytesNotFrames(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		client, backend := newSplicedPeers(t, Limits{TinyData: 1 << 20})
		backend.writeSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		backend.wantFrame("settings", debugSettingsAck{})
		client.writeRequest(1, false)
		synctest.Wait()
		for range 64 << 10 {
			client.writeData(1, "x", false)
		}
		synctest.Wait()
		up := &client.conn.acceptor.(*splice).pairs[0].up
		if n := up.Pending(); n != 64<<10 {
			t.Errorf("%d bytes wait, want %d", n, 64<<10)
		}
		pieces, size := 0, 0
		for p := up.q.head; p != nil; p = p.next {
			pieces++
			size += len(p.buf)
		}
		if size > 2*64<<10 {
			t.Errorf("%d bytes are held in %d pieces of together %d", 64<<10, pieces, size)
		}
		client.writeReset(1, http2.ErrCodeCancel)
	})
}

func TestFlowSurvivesWindowFlips(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{Settings: 1 << 20}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		s := p.request(1, true)
		sendData(s, strings.Repeat("x", 60_000), true)
		sent := 0
		for i := range 10_000 {
			p.writeSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(65535 * (i % 2))})
			for _, f := range p.skipFrames() {
				if d, ok := f.(debugData); ok {
					sent += len(d.data)
				}
			}
		}
		if sent != 60_000 || p.conn.OpenStreams() != 0 {
			t.Errorf("%d bytes were sent, %d streams are open; want 60000 and none", sent, p.conn.OpenStreams())
		}
	})
}

// TestFlowKeepsToTheWindows sends by random windows and sizes; the peer keeps the
// books as RFC 9113 section 6.9 has them.
func TestFlowKeepsToTheWindows(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(t *testing.T) { flowBooks(t, seed) })
		})
	}
}

// creditNotes is a source that writes down what it gets.
type creditNotes struct {
	mu    sync.Mutex // guards notes
	notes []string
}

func (c *creditNotes) Credit(n int32, drained bool, _ *Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = append(c.notes, fmt.Sprintf("%d drained %v", n, drained))
}

func (c *creditNotes) want(t *testing.T, reason string, want ...string) {
	t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if fmt.Sprint(c.notes) != fmt.Sprint(want) {
		t.Errorf("%s: credit of %v, want %v", reason, c.notes, want)
	}
	c.notes = nil
}

// Credit for what one write takes comes once to each source, and says whether more
// of it waits.
func TestFlowSumsUpCredit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		var one, two creditNotes
		s, s2 := p.request(1, true), p.request(3, true)
		s.SetSource(&one)
		s2.SetSource(&two)
		var b Batch
		s.SendData([]byte("12345"), false, &b)
		s.SendData(make([]byte, 70_000), false, &b)
		p.wantIdle("nothing leaves before the flush")
		one.want(t, "nor is credited")
		b.Flush()
		one.want(t, "the windows are used up", "65535 drained false")
		p.writeWindowUpdate(0, 1<<20)
		p.writeWindowUpdate(1, 10)
		one.want(t, "a little more", "10 drained false")
		p.writeWindowUpdate(1, 1<<20)
		one.want(t, "the rest", "4460 drained true")
		s.SendData([]byte("x"), false, &b)
		s.SendData([]byte("y"), false, &b)
		s2.SendData([]byte("z"), false, &b)
		s.SendData([]byte("z"), false, &b)
		b.Flush()
		one.want(t, "two frames, and one behind another stream's", "2 drained true", "1 drained true")
		two.want(t, "another stream", "1 drained true")
	})
}
