package web

import (
	"errors"
	"io"
	"sync/atomic"

	"sluice/gateway/wire"
)

// body is the body of a request as gRPC has it: messages, checked. One goroutine
// reads it; any may close it.
type body struct {
	src      io.ReadCloser
	exchange *exchange // of HTTP; nil for a WebSocket
	frames   RequestFrames

	// Of text; room is 0 when the body is binary.
	text  TextDecoder
	room  int     // how much text is read at once, in bytes
	coded []byte  // that much
	err   error   // that came with the last of it
	one   [3]byte // for a read of less than a quantum
	left  []byte  // what has been decoded and not been read

	ended atomic.Bool // all has been read
	cut   atomic.Bool // closed before that
	fault atomic.Pointer[wire.Status]
}

// maxRoom bounds the text that is held while it is decoded, in bytes.
const maxRoom = 16 << 10

// readText has the body decoded. Of a body whose length is known, and small, all is
// decoded here and now; what it returns is how long it is then, or -1.
func (b *body) readText(length int64) int64 {
	b.room = 4 << 10
	if length < 0 || length > maxRoom {
		return -1
	}
	b.coded = make([]byte, length)
	n, broken := io.ReadFull(b.src, b.coded)
	b.left, b.err = b.text.Append(b.coded[:0], b.coded[:n])
	switch {
	case b.err != nil:
	case errors.Is(broken, io.EOF):
		b.err = io.ErrUnexpectedEOF // there was to be more than nothing
	case broken != nil:
		b.err = broken
	case b.text.End() != nil:
		b.err = b.text.End()
	default:
		b.err = io.EOF
		return int64(len(b.left))
	}
	return -1
}

// Read implements io.Reader. An error of the request's own making is a *wire.Status.
func (b *body) Read(p []byte) (int, error) {
	if st := b.fault.Load(); st != nil {
		return 0, st
	}
	n, err := b.read(p)
	if n > 0 {
		if fault := b.frames.Check(p[:n]); fault != nil {
			n, err = 0, fault
		}
	}
	if errors.Is(err, io.EOF) {
		err = b.end()
	}
	var st *wire.Status
	if errors.As(err, &st) {
		b.fault.CompareAndSwap(nil, st)
	}
	return n, err
}

// end is what the end of the body means.
func (b *body) end() error {
	if b.room > 0 {
		if err := b.text.End(); err != nil {
			return err
		}
	}
	if err := b.frames.End(); err != nil {
		return err
	}
	b.ended.Store(true)
	return io.EOF
}

func (b *body) read(p []byte) (int, error) {
	switch {
	case b.room == 0:
		return b.src.Read(p)
	case len(p) == 0:
		return 0, nil
	case len(b.left) > 0:
	case len(p) >= len(b.one):
		return b.decode(p)
	default:
		n, err := b.decode(b.one[:])
		if b.left = b.one[:n]; n == 0 {
			return 0, err
		}
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	if len(b.left) == 0 && errors.Is(b.err, io.EOF) {
		return n, b.err // together, so that the end is known at once
	}
	return n, nil
}

// decode reads until it has something for p, which has room for a quantum.
func (b *body) decode(p []byte) (int, error) {
	if b.coded == nil {
		b.coded = make([]byte, b.room)
	}
	size := min(len(p)/3*4, b.room)
	for b.err == nil {
		var n int
		n, b.err = b.src.Read(b.coded[:size])
		out, fault := b.text.Append(p[:0:len(p)], b.coded[:n])
		if fault != nil {
			return 0, fault
		}
		if errors.Is(b.err, io.EOF) {
			return len(out), b.err // together, so that the end is known at once
		}
		if len(out) > 0 {
			return len(out), nil
		}
	}
	return 0, b.err
}

// Close implements io.Closer. A Read that waits returns.
func (b *body) Close() error {
	if b.ended.Load() {
		return nil
	}
	b.cut.Store(true)
	return b.src.Close()
}
