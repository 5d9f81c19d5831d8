package hostile

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/net/http2"
)

// script is a run of frames, right or wrong, as bytes that are ready to be sent:
// an attack then costs its sender the system calls and nothing else.
type script []byte

// maxFrame is the largest payload that every peer takes, bytes.
const maxFrame = 16384

// Flags by number, because a wrong frame may carry any.
const (
	endStream  = http2.FlagDataEndStream
	endHeaders = http2.FlagHeadersEndHeaders
	ack        = http2.FlagSettingsAck
)

// frame appends a frame of any type.
func (s script) frame(typ http2.FrameType, flags http2.Flags, id uint32, payload ...byte) script {
	return append(s.declare(len(payload), typ, flags, id), payload...)
}

// declare appends the nine bytes that announce a frame, and nothing of it.
func (s script) declare(length int, typ http2.FrameType, flags http2.Flags, id uint32) script {
	s = append(s, byte(length>>16), byte(length>>8), byte(length), byte(typ), byte(flags))
	return binary.BigEndian.AppendUint32(s, id)
}

func (s script) preface() script { return append(s, http2.ClientPreface...) }

func (s script) settings(list ...http2.Setting) script {
	s = s.declare(6*len(list), http2.FrameSettings, 0, 0)
	for _, e := range list {
		s = binary.BigEndian.AppendUint16(s, uint16(e.ID))
		s = binary.BigEndian.AppendUint32(s, e.Val)
	}
	return s
}

func (s script) settingsAck() script { return s.frame(http2.FrameSettings, ack, 0) }

func (s script) ping() script { return s.frame(http2.FramePing, 0, 0, []byte("hostile!")...) }

func (s script) reset(id uint32, code http2.ErrCode) script {
	return s.frame(http2.FrameRSTStream, 0, id, binary.BigEndian.AppendUint32(nil, uint32(code))...)
}

func (s script) windowUpdate(id, n uint32) script {
	return s.frame(http2.FrameWindowUpdate, 0, id, binary.BigEndian.AppendUint32(nil, n)...)
}

func (s script) priority(id, dependsOn uint32) script {
	return s.frame(http2.FramePriority, 0, id, append(binary.BigEndian.AppendUint32(nil, dependsOn), 15)...)
}

func (s script) goAway(last uint32, code http2.ErrCode) script {
	p := binary.BigEndian.AppendUint32(nil, last)
	return s.frame(http2.FrameGoAway, 0, 0, binary.BigEndian.AppendUint32(p, uint32(code))...)
}

func (s script) data(id uint32, end bool, p []byte) script {
	for len(p) > maxFrame {
		s = s.frame(http2.FrameData, 0, id, p[:maxFrame]...)
		p = p[maxFrame:]
	}
	return s.frame(http2.FrameData, flagIf(end, endStream), id, p...)
}

// headers appends a header block, in as many frames as it needs.
func (s script) headers(id uint32, end bool, block []byte) script {
	typ, flags := http2.FrameHeaders, flagIf(end, endStream)
	for len(block) > maxFrame {
		s = s.frame(typ, flags, id, block[:maxFrame]...)
		typ, flags, block = http2.FrameContinuation, 0, block[maxFrame:]
	}
	return s.frame(typ, flags|endHeaders, id, block...)
}

func flagIf(set bool, f http2.Flags) http2.Flags {
	if set {
		return f
	}
	return 0
}

// times appends the same again and again.
func (s script) times(n int, what script) script { return append(s, bytes.Repeat(what, n)...) }

// Literal forms of RFC 7541 section 6.2, by their first byte.
const (
	remembered  = 0x40 // goes into the table
	forgotten   = 0x00
	neverTabled = 0x10
)

// literal appends a field that leaves the compression state alone, so that a
// block stays right however often it is sent.
func literal(b []byte, name, value string) []byte { return field(b, forgotten, name, value) }

func field(b []byte, form byte, name, value string) []byte {
	return text(text(append(b, form), name), value)
}

// text appends a string without Huffman coding, RFC 7541 section 5.2.
func text(b []byte, s string) []byte { return append(integer(b, 7, 0, len(s)), s...) }

func integer(b []byte, prefix uint, first byte, n int) []byte {
	mask := 1<<prefix - 1
	if n < mask {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(mask))
	for n -= mask; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// block is a header block of literals, given as names and values in turn.
func block(pairs ...string) (b []byte) {
	for i := 0; i < len(pairs); i += 2 {
		b = literal(b, pairs[i], pairs[i+1])
	}
	return b
}

// grpcHead is the header block of a gRPC request.
func grpcHead(authority, path string, more ...string) []byte {
	return append(block(":method", "POST", ":scheme", "http", ":authority", authority, ":path", path,
		"content-type", "application/grpc", "te", "trailers"), block(more...)...)
}

// message is a gRPC message of n bytes behind its prefix.
func message(n int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(n)), make([]byte, n)...)
}
