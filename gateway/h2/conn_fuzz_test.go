package h2

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// FuzzConnFrames sends anything to a connection that has been greeted: bytes as
// they are, or frames that x/net's Framer writes from them. Whatever comes, nothing
// panics or hangs, what we send is understood by x/net, each stream's sink hears of
// at most one end, and nothing is left behind.
func FuzzConnFrames(f *testing.F) {
	for _, client := range []bool{false, true} {
		for _, program := range fuzzPrograms {
			f.Add(client, true, program)
		}
		for _, typ := range []uint8{typeData, typeHeaders, typePriority, typeRSTStream, typeSettings, typePushPromise, typePing, typeGoAway, typeWindowUpdate, typeContinuation, 0x42} {
			for _, length := range []int{0, 4, 5, 6, 8} {
				b := appendFrameHeader(nil, length, typ, uint8(length*37), 1)
				b = append(b, make([]byte, length)...)
				b = appendFrameHeader(b, length, typ, 0, 0)
				f.Add(client, false, append(b, make([]byte, length)...))
			}
		}
		block := hpackBlock(splitFields(requestLines()...)...)
		b := appendFrameHeader(nil, len(block), typeHeaders, flagEndHeaders, 1)
		b = append(b, block...)
		b = appendData(b, 1, []byte("body"), true)
		b = appendRSTStream(b, 1, http2.ErrCodeCancel)
		f.Add(client, false, b)
	}
	f.Fuzz(func(t *testing.T, client, structured bool, data []byte) {
		if len(data) > 4<<10 || structured && len(data) > 400 {
			return // longer ones only cost time
		}
		inBubble(t, func(t *testing.T) { fuzzConn(t, client, structured, data) })
	})
}

// fuzzPrograms are for fuzzWriter: an operation, its stream, its size and what it
// is made of.
var fuzzPrograms = [][]byte{
	{0, 1, 0, 1, 1, 1, 200, 0, 1, 1, 10, 1},            // a request with a body
	{0, 1, 0, 0, 0, 3, 0, 1, 0, 5, 9, 1, 2, 1, 8, 0},   // requests, one is reset
	{4, 0, 0, 0, 0, 1, 0, 1, 4, 0, 255, 3, 4, 0, 1, 3}, // windows that flip
	{6, 1, 255, 0, 6, 0, 255, 0, 6, 1, 0, 0},           // window updates
	{5, 0, 1, 0, 5, 0, 1, 1, 7, 3, 2, 0},               // pings, a goaway
	{3, 1, 1, 0, 3, 5, 5, 0, 9, 1, 3, 7},               // priorities, an unknown frame
	{8, 1, 9, 0, 8, 1, 3, 1},                           // continuations
	{0, 1, 1, 2, 0, 1, 2, 3, 0, 1, 3, 1},               // malformed and trailing headers
	{10, 0, 60, 0, 0, 1, 0, 0, 10, 0, 255, 0},          // time passes
}

func fuzzConn(t *testing.T, client, structured bool, data []byte) {
	var p *peer
	if client {
		p = greetedClient(t, Limits{MaxConcurrentStreams: 5})
		p.rec.credit = true
		for i := range 4 {
			s := p.open(i%2 == 0, requestLines()...)
			sendData(s, strings.Repeat("x", i*30_000), false)
		}
	} else {
		p = greetedServer(t, Limits{MaxConcurrentStreams: 5})
		p.rec.onOpen = func(s *Stream, h *Head, b *Batch) {
			if s.ID()%4 != 1 {
				return // for the client to end
			}
			s.SendHeader(engineFields(":status: 200"), false, b)
			s.SendData([]byte(strings.Repeat("x", 50_000)), false, b)
			s.SendHeader(engineFields("grpc-status: 0"), true, b)
		}
	}
	if structured {
		fuzzWriter{p}.run(data)
	} else {
		p.writeRaw(data)
	}
	p.skipFrames()
	p.writePing("end")
	p.skipFrames()
	p.nc.Close()
	select {
	case <-p.ran:
	case <-time.After(time.Minute):
		t.Fatal("the connection does not end")
	}
	ends := map[string]int{}
	p.rec.mu.Lock()
	defer p.rec.mu.Unlock()
	for _, e := range p.rec.events {
		if strings.HasPrefix(e, "ended ") && !strings.Contains(e, DrainEnded.String()) {
			id, _, _ := strings.Cut(e[len("ended "):], " ")
			if ends[id]++; ends[id] > 1 {
				t.Fatalf("stream %s ended twice: %v", id, p.rec.events)
			}
		}
	}
}

// fuzzWriter makes frames of four bytes each.
type fuzzWriter struct{ p *peer }

func (w fuzzWriter) run(data []byte) {
	for ; len(data) >= 4; data = data[4:] {
		if w.p.ended() {
			return
		}
		w.step(data[0], uint32(data[1]), int(data[2]), data[3])
	}
}

func (w fuzzWriter) step(op byte, id uint32, size int, arg byte) {
	fr := w.p.out
	switch op % 11 {
	case 0:
		w.headers(id, size, arg)
	case 1:
		fr.WriteDataPadded(id, arg&1 != 0, make([]byte, size*64), make([]byte, int(arg)/2))
	case 2:
		fr.WriteRSTStream(id, http2.ErrCode(size))
	case 3:
		fr.WritePriority(id, http2.PriorityParam{StreamDep: uint32(size), Weight: arg})
	case 4:
		ids := []http2.SettingID{http2.SettingHeaderTableSize, http2.SettingEnablePush, http2.SettingMaxConcurrentStreams, http2.SettingInitialWindowSize, http2.SettingMaxFrameSize, http2.SettingMaxHeaderListSize, 0x99}
		fr.WriteSettings(http2.Setting{ID: ids[int(arg)%len(ids)], Val: uint32(size) * uint32(size) * uint32(id)})
	case 5:
		fr.WritePing(arg&1 != 0, drainPing)
	case 6:
		fr.WriteWindowUpdate(id, uint32(size)<<(arg%24))
	case 7:
		fr.WriteGoAway(id, http2.ErrCode(size), []byte("too_many_pings"))
	case 8:
		fr.WriteContinuation(id, arg&1 != 0, make([]byte, size))
	case 9:
		w.p.writeFrame(arg, uint8(size), id, make([]byte, size))
	case 10:
		pass(time.Duration(size) * time.Second)
		if arg&1 != 0 {
			w.p.skipFrames()
		}
		if arg&2 != 0 {
			drain(w.p.conn)
		}
		if arg&4 != 0 {
			var b Batch
			w.p.conn.EndStreams(&b)
			b.Flush()
		}
	}
}

// headers writes sections good and bad.
func (w fuzzWriter) headers(id uint32, size int, arg byte) {
	sections := [][]string{
		requestLines(),
		{":status: 200"},
		{":status: 103"},
		{"grpc-status: 0"},
		{":path: /"},
		{},
		append(requestLines(), "content-length: 5"),
		{":status: 200", "content-length: 5"},
	}
	lines := sections[int(arg/4)%len(sections)]
	if w.p.conn.side == Downstream && arg < 4 {
		lines = requestLines()
	} else if arg < 4 {
		lines = []string{":status: 200"}
	}
	for range size % 8 {
		lines = append(lines[:len(lines):len(lines)], "x-pad: "+strings.Repeat("v", size*10))
	}
	block := w.p.encode(lines...)
	param := http2.HeadersFrameParam{StreamID: id, EndStream: arg&1 != 0, EndHeaders: arg&2 == 0, BlockFragment: block, PadLength: arg / 8}
	if size%5 == 4 {
		param.Priority = http2.PriorityParam{StreamDep: uint32(arg), Weight: arg}
	}
	w.p.out.WriteHeaders(param)
	if arg&2 != 0 && size%3 != 0 {
		w.p.out.WriteContinuation(id, true, nil)
	}
}
