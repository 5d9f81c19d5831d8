package h2

import (
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestSettingsAreAcknowledgedEachTime(t *testing.T) {
	for _, side := range sides {
		t.Run(side.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedEither(t, side, Limits{})
				for range 3 {
					p.writeSettings(
						http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 1},
						http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1<<24 - 1},
						http2.Setting{ID: http2.SettingHeaderTableSize, Val: 1<<32 - 1},
						http2.Setting{ID: http2.SettingEnablePush, Val: 0},
						http2.Setting{ID: 0xf00d, Val: 1<<32 - 1}, // unknown ones are ignored
					)
				}
				p.wantFrame("each", debugSettingsAck{}, debugSettingsAck{}, debugSettingsAck{})
				p.wantIdle("once")
				p.rec.want(t, "a connection becomes ready once")
			})
		})
	}
}

func TestSettingsOfAClientMayOfferPush(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{}, http2.Setting{ID: http2.SettingEnablePush, Val: 1})
		p.wantIdle("an offer that we leave alone")
	})
}

func TestSettingsShiftWindows(t *testing.T) {
	window := func(n uint32) http2.Setting { return http2.Setting{ID: http2.SettingInitialWindowSize, Val: n} }
	for _, side := range sides {
		t.Run(side.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedEither(t, side, Limits{}, window(10))
				s := openEither(p)
				sendData(s, "0123456789abcdefghijklmnopqrstuvwxyz", true)
				p.wantFrame("the window is 10", debugData{1, "0123456789", false})
				p.wantIdle("the window is used up")

				p.writeSettings(window(12))
				p.wantFrame("2 more for every stream", debugSettingsAck{}, debugData{1, "ab", false})

				p.writeSettings(window(2)) // the window is -10 now
				p.wantFrame("10 less", debugSettingsAck{})
				p.writeWindowUpdate(1, 10)
				p.wantIdle("the window is 0")
				p.writeSettings(window(1)) // -1
				p.wantFrame("1 less", debugSettingsAck{})
				p.writeWindowUpdate(1, 1)
				p.wantIdle("the window is 0 again")
				p.writeWindowUpdate(1, 3)
				p.wantFrame("the window is 3", debugData{1, "cde", false})

				p.writeSettings(window(0))
				p.wantFrame("1 less", debugSettingsAck{})
				p.writeSettings(window(100))
				p.wantFrame("99 more than there is to send", debugSettingsAck{}, debugData{1, "fghijklmnopqrstuvwxyz", true})
			})
		})
	}
}

// The shift is for streams only, RFC 9113 section 6.9.2.
func TestSettingsLeaveTheConnectionWindowAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		s := p.request(1, true)
		sendData(s, strings.Repeat("x", 70_000), true)
		sum := 0
		for _, f := range p.skipFrames() {
			sum += len(f.(debugData).data)
		}
		if sum != 65535 {
			t.Errorf("%d bytes were sent, want the connection's 65535", sum)
		}
		p.writeWindowUpdate(0, 70_000-65535)
		p.wantFrame("the connection has room", debugData{1, strings.Repeat("x", 70_000-65535), true})
	})
}

// Whatever the peer takes, DATA stays at 16 KiB, and so does a header block's
// piece: larger ones would stand in the way of other streams.
func TestSettingsDoNotMakeFramesLarger(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{},
			http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1<<24 - 1},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		sendData(p.request(1, true), strings.Repeat("x", 40_000), true)
		p.wantFrame("in pieces",
			debugData{1, strings.Repeat("x", 16384), false},
			debugData{1, strings.Repeat("x", 16384), false},
			debugData{1, strings.Repeat("x", 40_000-2*16384), true})
	})
}

// Every size that the peer may ask of our table is obeyed; x/net's decoder, which
// refuses what does not fit its own table, is the judge.
func TestSettingsSizeTheCompressionTable(t *testing.T) {
	for _, sizes := range [][]uint32{{0}, {31}, {64}, {100, 0}, {0, 4096}, {0, 1 << 31}, {1<<32 - 1}, {70, 0, 200}} {
		inBubble(t, func(t *testing.T) {
			p := greetedClient(t, Limits{})
			p.opened(true) // the table is in use
			smallest := uint32(4096)
			var settings []http2.Setting
			for _, n := range sizes {
				settings = append(settings, http2.Setting{ID: http2.SettingHeaderTableSize, Val: n})
				smallest = min(smallest, n)
			}
			p.writeSettings(settings...)
			p.wantFrame("settings", debugSettingsAck{})
			p.frames.ReadMetaHeaders.SetAllowedMaxDynamicTableSize(min(4096, sizes[len(sizes)-1]))
			if smallest < 4096 {
				p.frames.ReadMetaHeaders.SetMaxDynamicTableSize(smallest)
			}
			for range 3 {
				p.open(true, append(requestLines(), "x-new: field")...)
				want := strings.Join(append(requestLines(), "x-new: field"), ", ")
				p.wantFrame("a peer with its table cut down", debugHeaders{p.conn.nextID - 2, want, true})
			}
			if last := min(4096, sizes[len(sizes)-1]); p.conn.enc.table.size > last {
				t.Errorf("sizes %v: our table holds %d bytes, want at most %d", sizes, p.conn.enc.table.size, last)
			}
		})
	}
}

func TestSettingsChangeHowManyStreamsWeOpen(t *testing.T) {
	most := func(n uint32) http2.Setting { return http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n} }
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{}, most(2))
		p.opened(false)
		p.opened(false)
		p.writeSettings(most(1))
		p.wantFrame("fewer than are open", debugSettingsAck{})
		if _, err := p.tryOpen(false, requestLines()...); err != ErrNoSlot {
			t.Errorf("opening a third: %v, want %v", err, ErrNoSlot)
		}
		p.writeReset(1, http2.ErrCodeCancel)
		p.ended()
		if _, err := p.tryOpen(false, requestLines()...); err != ErrNoSlot {
			t.Errorf("opening a second: %v, want %v", err, ErrNoSlot)
		}
		p.writeSettings(most(3))
		p.wantFrame("more", debugSettingsAck{})
		p.opened(false)
		p.opened(false)
		if !p.conn.Full() {
			t.Error("three of three are open: want full")
		}
	})
}

func TestSettingsOfAClientDoNotBoundItsStreams(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
		p.request(1, true)
		p.wantIdle("it speaks of streams that we would open")
	})
}

// A peer whose table is smaller than what our encoder starts with hears of the
// change before the first field.
func TestSettingsTableSizeBeforeTheFirstField(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newClientPeer(t, Limits{})
		p.frames.ReadMetaHeaders = hpack.NewDecoder(0, nil)
		p.greet(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
		p.opened(true)
		p.opened(true)
	})
}
