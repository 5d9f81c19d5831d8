package h2

import (
	"sync"
	"sync/atomic"
)

// readBufferSize is what one read takes from a socket at most, and the bytes
// after which a reader turns to flushing. Four of the largest frames.
const readBufferSize = 64 << 10

// Sizes of the buffers that keep the beginning of a frame while the rest of it
// is on its way, so that a connection in the middle of a frame does not hold a
// whole read buffer. The largest holds a frame of 16 KiB with its header.
const (
	readRestTiny   = 256
	readRestSmall  = 1 << 10
	readRestMedium = 4 << 10
	readRestLarge  = 16<<10 + 512
)

var (
	readBufferPool = sync.Pool{New: func() any { return new([readBufferSize]byte) }}
	readRestTinies = sync.Pool{New: func() any { return new([readRestTiny]byte) }}
	readRestSmalls = sync.Pool{New: func() any { return new([readRestSmall]byte) }}
	readRestMedia  = sync.Pool{New: func() any { return new([readRestMedium]byte) }}
	readRestLarges = sync.Pool{New: func() any { return new([readRestLarge]byte) }}
)

// readBuffersHeld counts the full-size buffers that are out of the pool.
var readBuffersHeld atomic.Int64

// readBuffer is a window onto what has arrived and was not consumed yet. It
// holds memory only while there is something in it, or while a read is at work.
// The zero value is empty. It belongs to the connection's reader.
type readBuffer struct {
	buf        []byte // of one of the pools; nil while empty
	start, end int    // the unconsumed bytes are buf[start:end]
}

// bytes returns what was not consumed yet; valid until the next fill or release.
func (b *readBuffer) bytes() []byte { return b.buf[b.start:b.end] }

// consume drops the first n unconsumed bytes.
func (b *readBuffer) consume(n int) {
	b.start += n
	if b.start > b.end {
		panic("BUG: consumed more than was read")
	}
	if b.start == b.end {
		b.start, b.end = 0, 0
	}
}

// space returns the room behind the unconsumed bytes, in a buffer of full size.
func (b *readBuffer) space() []byte {
	if len(b.buf) != readBufferSize {
		readBuffersHeld.Add(1)
		b.move(readBufferPool.Get().(*[readBufferSize]byte)[:])
	} else if b.start > 0 {
		b.end = copy(b.buf, b.bytes())
		b.start = 0
	}
	return b.buf[b.end:]
}

// add appends p, as far as there is room, and returns how much of it that was.
func (b *readBuffer) add(p []byte) int {
	n := copy(b.space(), p)
	b.end += n
	return n
}

// park gives the full-size buffer back for the time that nothing arrives. A
// remainder moves into the smallest buffer that holds it.
func (b *readBuffer) park() {
	if len(b.buf) != readBufferSize {
		return
	}
	switch n := b.end - b.start; {
	case n == 0:
		b.release()
	case n <= readRestTiny:
		b.move(readRestTinies.Get().(*[readRestTiny]byte)[:])
	case n <= readRestSmall:
		b.move(readRestSmalls.Get().(*[readRestSmall]byte)[:])
	case n <= readRestMedium:
		b.move(readRestMedia.Get().(*[readRestMedium]byte)[:])
	case n <= readRestLarge:
		b.move(readRestLarges.Get().(*[readRestLarge]byte)[:])
	}
}

// move changes the memory behind the window.
func (b *readBuffer) move(to []byte) {
	n := copy(to, b.bytes())
	b.release()
	b.buf, b.start, b.end = to, 0, n
}

// release empties the buffer and gives its memory back. It may be used again.
func (b *readBuffer) release() {
	switch len(b.buf) {
	case readBufferSize:
		readBuffersHeld.Add(-1)
		readBufferPool.Put((*[readBufferSize]byte)(b.buf))
	case readRestTiny:
		readRestTinies.Put((*[readRestTiny]byte)(b.buf))
	case readRestSmall:
		readRestSmalls.Put((*[readRestSmall]byte)(b.buf))
	case readRestMedium:
		readRestMedia.Put((*[readRestMedium]byte)(b.buf))
	case readRestLarge:
		readRestLarges.Put((*[readRestLarge]byte)(b.buf))
	}
	*b = readBuffer{}
}

// transportInput is the reader's side of a transport.
type transportInput struct {
	unread []byte     // taken from the connection before it was ours
	sealed readBuffer // arrived in TLS, and not opened yet
	dry    bool       // under TLS, the last read of the descriptor took all that was there
	bytes  int64      // received from the socket under TLS, to judge replies by

	// Arguments and results of the prepared call.
	fd   int // valid within the call
	into *readBuffer
	p    []byte
	n    int
	err  error
}

// fill appends what has arrived to b, and waits until at least one byte has.
// While it waits, b holds no memory when nothing in it is unconsumed, and else
// no more than the remainder needs. The read deadline ends the wait. Only the
// connection's one reader calls it.
func (t *Transport) fill(b *readBuffer) error {
	if t.tls == nil && len(t.in.unread) > 0 {
		t.in.took(b.add(t.in.unread))
		return nil
	}
	if b.end-b.start >= readBufferSize {
		return errTransportFull
	}
	if t.raw != nil {
		return t.fillPolled(b)
	}
	n, err := t.readBlocking(b.space())
	b.end += n
	if n > 0 {
		return nil
	}
	b.park()
	return err
}

// read is Read for its one caller at a time.
func (t *Transport) read(p []byte) (int, error) {
	if t.tls == nil || t.raw == nil {
		return t.readBlocking(p)
	}
	return t.readPolled(p)
}

// readBlocking reads where blocking is all that can be done, or all that is
// asked for.
func (t *Transport) readBlocking(p []byte) (int, error) {
	if t.tls != nil {
		n, err := t.tls.Read(p)
		if replyErr := t.settleReplies(); n == 0 && replyErr != nil {
			err = replyErr
		}
		return n, err
	}
	return t.readSocket(p)
}

// readSocket delivers the unread bytes, then what the connection delivers.
func (t *Transport) readSocket(p []byte) (int, error) {
	if len(t.in.unread) > 0 {
		n := copy(p, t.in.unread)
		t.in.took(n)
		return n, nil
	}
	return t.nc.Read(p)
}

// took drops n of the unread bytes, and their memory after the last.
func (in *transportInput) took(n int) {
	if in.unread = in.unread[n:]; len(in.unread) == 0 {
		in.unread = nil
	}
}
