package web

import (
	"encoding/binary"
	"fmt"

	"sluice/gateway/wire"
)

// RequestFrames follows the messages of a request, however they are cut, and
// refuses what a request cannot hold. It keeps no message and bounds none: what
// passes through is the backend's to limit. The zero value is ready.
type RequestFrames struct {
	prefix [wire.PrefixLen]byte
	have   int   // bytes of prefix that have come
	left   int64 // bytes of the message that are still to come
	err    error // what was found; it does not go away
}

// Check looks at the next bytes of the request. Its error is a *wire.Status.
// PROTOCOL-WEB knows two bits of the flags: compressed, and trailers, which only a
// response has.
func (f *RequestFrames) Check(p []byte) error {
	for len(p) > 0 && f.err == nil {
		if f.left > 0 {
			n := min(f.left, int64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		n := copy(f.prefix[f.have:], p)
		f.have += n
		p = p[n:]
		f.open()
	}
	return f.err
}

// open judges the flags as soon as they are there, and starts the message when its
// prefix is complete.
func (f *RequestFrames) open() {
	if flags := f.prefix[0]; flags > wire.FlagCompressed {
		f.err = flagFault(flags)
		return
	}
	if f.have == wire.PrefixLen {
		f.left = int64(binary.BigEndian.Uint32(f.prefix[1:]))
		f.have = 0
	}
}

// End is what the end of the request means: an error when it is within a message.
func (f *RequestFrames) End() error {
	switch {
	case f.err != nil:
		return f.err
	case f.have > 0:
		return fault("the request ends within the prefix of a message, after %d of %d bytes", f.have, wire.PrefixLen)
	case f.left > 0:
		return fault("the request ends %d bytes before its message does", f.left)
	}
	return nil
}

func flagFault(flags byte) error {
	if flags&wire.FlagWebTrailers != 0 {
		return fault("the request has a frame of trailers (flags 0x%02x), which only a response may have", flags)
	}
	return fault("the request has a message with flags 0x%02x, known are 0x00 and 0x01 (compressed)", flags)
}

// fault is the caller's mistake, in words for the caller.
func fault(format string, args ...any) error {
	return &wire.Status{
		Code:    wire.InvalidArgument,
		Message: "sluice: gRPC-Web: " + fmt.Sprintf(format, args...),
		Gateway: true,
	}
}
