package h2

import "golang.org/x/net/http2"

// Frame sizes, RFC 9113 section 4.1 and 4.2. All in bytes.
const (
	frameHeaderLen  = 9
	minMaxFrameSize = 16384     // what every peer takes, and what we advertise
	maxMaxFrameSize = 1<<24 - 1 // the largest SETTINGS_MAX_FRAME_SIZE
	maxWindow       = 1<<31 - 1 // the largest flow-control window
	maxStreamID     = 1<<31 - 1
)

// Frame types, RFC 9113 section 6.
const (
	typeData         = uint8(http2.FrameData)
	typeHeaders      = uint8(http2.FrameHeaders)
	typePriority     = uint8(http2.FramePriority)
	typeRSTStream    = uint8(http2.FrameRSTStream)
	typeSettings     = uint8(http2.FrameSettings)
	typePushPromise  = uint8(http2.FramePushPromise)
	typePing         = uint8(http2.FramePing)
	typeGoAway       = uint8(http2.FrameGoAway)
	typeWindowUpdate = uint8(http2.FrameWindowUpdate)
	typeContinuation = uint8(http2.FrameContinuation)
)

// Frame flags.
const (
	flagEndStream  = uint8(0x1)
	flagAck        = uint8(0x1)
	flagEndHeaders = uint8(0x4)
	flagPadded     = uint8(0x8)
	flagPriority   = uint8(0x20)
)

// frameHeader is the nine bytes in front of every frame. The reader parses it in
// place: x/net's Framer copies each payload once more and allocates most frame
// types (BenchmarkParseFrames holds the two side by side), so here it is the
// oracle of the tests and not the reader.
type frameHeader struct {
	length uint32 // of the payload
	typ    uint8
	flags  uint8
	id     uint32 // stream, without the reserved bit
}

// consumeFrameHeader reads a header from b, which holds at least nine bytes.
func consumeFrameHeader(b []byte) frameHeader {
	_ = b[8]
	return frameHeader{
		length: uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]),
		typ:    b[3],
		flags:  b[4],
		id:     consumeUint31(b[5:]),
	}
}

func appendFrameHeader(b []byte, length int, typ, flags uint8, id uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), typ, flags,
		byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func consumeUint31(b []byte) uint32 { return consumeUint32(b) & maxStreamID }

func consumeUint32(b []byte) uint32 {
	_ = b[3]
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func appendUint32(b []byte, v uint32) []byte {
	return append(b, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func appendData(b []byte, id uint32, p []byte, end bool) []byte {
	var flags uint8
	if end {
		flags = flagEndStream
	}
	b = appendFrameHeader(b, len(p), typeData, flags, id)
	return append(b, p...)
}

func appendRSTStream(b []byte, id uint32, code http2.ErrCode) []byte {
	b = appendFrameHeader(b, 4, typeRSTStream, 0, id)
	return appendUint32(b, uint32(code))
}

func appendWindowUpdate(b []byte, id, n uint32) []byte {
	b = appendFrameHeader(b, 4, typeWindowUpdate, 0, id)
	return appendUint32(b, n)
}

func appendPing(b []byte, ack bool, data [8]byte) []byte {
	var flags uint8
	if ack {
		flags = flagAck
	}
	b = appendFrameHeader(b, 8, typePing, flags, 0)
	return append(b, data[:]...)
}

func appendGoAway(b []byte, last uint32, code http2.ErrCode, debug string) []byte {
	b = appendFrameHeader(b, 8+len(debug), typeGoAway, 0, 0)
	b = appendUint32(b, last)
	b = appendUint32(b, uint32(code))
	return append(b, debug...)
}

func appendSettings(b []byte, list ...http2.Setting) []byte {
	b = appendFrameHeader(b, 6*len(list), typeSettings, 0, 0)
	for _, s := range list {
		b = append(b, byte(s.ID>>8), byte(s.ID))
		b = appendUint32(b, s.Val)
	}
	return b
}

func appendSettingsAck(b []byte) []byte {
	return appendFrameHeader(b, 0, typeSettings, flagAck, 0)
}

// finishHeaders turns the header block that starts at b[start+9:] into a HEADERS
// frame whose header has been reserved at b[start:], followed by as many
// CONTINUATION frames as the peer's frame size asks for.
func finishHeaders(b []byte, start int, id uint32, end bool, maxFrame int) []byte {
	var flags uint8
	if end {
		flags = flagEndStream
	}
	block := len(b) - start - frameHeaderLen
	if block <= maxFrame {
		appendFrameHeader(b[:start], block, typeHeaders, flags|flagEndHeaders, id)
		return b
	}
	rest := append([]byte(nil), b[start+frameHeaderLen+maxFrame:]...)
	b = b[:start+frameHeaderLen+maxFrame]
	appendFrameHeader(b[:start], maxFrame, typeHeaders, flags, id)
	for len(rest) > 0 {
		n := min(len(rest), maxFrame)
		flags = 0
		if n == len(rest) {
			flags = flagEndHeaders
		}
		b = appendFrameHeader(b, n, typeContinuation, flags, id)
		b = append(b, rest[:n]...)
		rest = rest[n:]
	}
	return b
}

// unpad returns the payload of a DATA or HEADERS frame without its padding, and
// how many bytes the padding took, length byte included. RFC 9113 section 6.1.
func unpad(h frameHeader, p []byte) (payload []byte, padding int, ok bool) {
	if h.flags&flagPadded == 0 {
		return p, 0, true
	}
	if len(p) == 0 || int(p[0]) >= len(p) {
		return nil, 0, false
	}
	n := int(p[0])
	return p[1 : len(p)-n], n + 1, true
}
