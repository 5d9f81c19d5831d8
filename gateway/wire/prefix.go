package wire

import "encoding/binary"

// PrefixLen is the length in bytes of what precedes every message: a byte of
// flags and the message's length, most significant byte first.
const PrefixLen = 5

// The flags of a prefix. Connect gives other meanings to the same bits, which is
// why they are left to the caller.
const (
	FlagCompressed  = 0x01 // gRPC and gRPC-Web: the message is compressed
	FlagWebTrailers = 0x80 // gRPC-Web: not a message but the trailers
)

// Prefix announces one message. Length is the peer's word: it may be 4 GiB with
// nothing behind it, so it reserves no memory.
type Prefix struct {
	Flags  byte
	Length uint32 // bytes of the message, the prefix not counted
}

// ParsePrefix reads the prefix that b starts with; it is not ok when b is shorter
// than one.
func ParsePrefix(b []byte) (p Prefix, ok bool) {
	if len(b) < PrefixLen {
		return Prefix{}, false
	}
	return Prefix{Flags: b[0], Length: binary.BigEndian.Uint32(b[1:])}, true
}

// AppendPrefix appends p as it stands on the wire.
func AppendPrefix(b []byte, p Prefix) []byte {
	return binary.BigEndian.AppendUint32(append(b, p.Flags), p.Length)
}
