package h2

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// The seam is where a stream leaves the engine as net/http knows it: a request
// with its writer downstream ([Seam]), a round trip upstream ([RoundTripper]). Both
// are made of the two halves in this file.

// body is the receiving half: DATA of a stream as an io.ReadCloser. The stream's
// window bounds what it holds.
type body struct {
	s *Stream

	mu       sync.Mutex // guards the fields below
	arrived  sync.Cond  // on mu: data, an end, or a closed body
	q        queue
	err      error // after q: io.EOF, or why the stream ended
	closed   bool  // nobody reads any more
	deadline bool  // the read deadline has passed
	timer    *time.Timer
	trailer  func() // fills in the message's trailers, run once before io.EOF
	onRead   func() // run before the first read waits: 100 Continue
}

var errBodyClosed = errors.New("body read after Close")

func (d *body) init(s *Stream) {
	d.s = s
	d.arrived.L = &d.mu
}

// put takes what the reader hands over.
func (d *body) put(p []byte, end bool, b *Batch) {
	d.mu.Lock()
	drop := d.closed
	if !drop {
		d.q.push(p)
	}
	if end && d.err == nil {
		d.err = io.EOF
	}
	d.arrived.Broadcast()
	d.mu.Unlock()
	if drop && len(p) > 0 {
		d.s.Credit(int32(len(p)), false, b)
	}
}

// fail ends the body with err, after what has arrived.
func (d *body) fail(err error) {
	d.mu.Lock()
	if d.err == nil {
		d.err = err
	}
	d.arrived.Broadcast()
	d.mu.Unlock()
}

func (d *body) Read(p []byte) (int, error) {
	d.mu.Lock()
	if f := d.onRead; f != nil {
		d.onRead = nil
		if d.q.size == 0 && d.err == nil {
			d.mu.Unlock()
			f()
			d.mu.Lock()
		}
	}
	for d.q.size == 0 && d.err == nil && !d.closed && !d.deadline {
		d.arrived.Wait()
	}
	switch {
	case d.closed:
		d.mu.Unlock()
		return 0, errBodyClosed
	case d.q.size == 0 && d.err != nil:
		err, fill := d.err, d.trailer
		d.trailer = nil
		d.mu.Unlock()
		if err == io.EOF && fill != nil {
			fill()
		}
		return 0, err
	case d.q.size == 0:
		d.mu.Unlock()
		return 0, context.DeadlineExceeded
	}
	n := min(len(p), d.q.size)
	d.q.pop(p[:0], n)
	drained := d.q.size == 0
	d.mu.Unlock()
	var b Batch
	d.s.Credit(int32(n), drained, &b)
	b.Flush()
	return n, nil
}

// Close gives up the rest. Its bytes go back to the sender's window as they come.
func (d *body) Close() error {
	d.mu.Lock()
	d.closed = true
	n := d.q.drop()
	d.arrived.Broadcast()
	d.mu.Unlock()
	if n > 0 {
		var b Batch
		d.s.Credit(int32(n), false, &b)
		b.Flush()
	}
	return nil
}

func (d *body) setDeadline(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.deadline = false
	if at.IsZero() {
		return
	}
	d.timer = time.AfterFunc(time.Until(at), func() {
		d.mu.Lock()
		d.deadline = true
		d.arrived.Broadcast()
		d.mu.Unlock()
	})
}

// sender is the sending half: blocking writes on top of a stream that never
// blocks. It is the stream's source, so that credit tells it what has left.
type sender struct {
	s *Stream

	mu       sync.Mutex // guards the fields below
	moved    sync.Cond  // on mu: bytes have left, or the stream has ended
	inFlight int        // bytes handed to the stream and not yet with the socket
	err      error      // why nothing more can be sent
	timer    *time.Timer
}

// senderWindow is how far a writer may run ahead of the socket, bytes.
const senderWindow = 64 << 10

func (w *sender) init(s *Stream) {
	w.s = s
	w.moved.L = &w.mu
}

// Credit hears from the socket.
func (w *sender) Credit(n int32, _ bool, _ *Batch) {
	w.mu.Lock()
	w.inFlight -= int(n)
	w.moved.Broadcast()
	w.mu.Unlock()
}

func (w *sender) fail(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.moved.Broadcast()
	w.mu.Unlock()
}

// send writes p, waiting while too much is on its way.
func (w *sender) send(p []byte) (n int, err error) {
	var b Batch
	n, err = w.sendHeld(p, &b)
	b.Flush()
	return n, err
}

// sendHeld is send, but the caller flushes the end of it.
func (w *sender) sendHeld(p []byte, b *Batch) (n int, err error) {
	for len(p) > 0 {
		w.mu.Lock()
		if w.inFlight >= senderWindow {
			w.mu.Unlock()
			b.Flush() // or there is nothing to wait for
			w.mu.Lock()
		}
		for w.inFlight >= senderWindow && w.err == nil {
			w.moved.Wait()
		}
		if err := w.err; err != nil {
			w.mu.Unlock()
			return n, err
		}
		part := p[:min(len(p), minMaxFrameSize)]
		w.inFlight += len(part)
		w.mu.Unlock()
		w.s.SendData(part, false, b)
		n += len(part)
		if p = p[len(part):]; len(p) > 0 {
			b.Flush()
		}
	}
	return n, nil
}

func (w *sender) setDeadline(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	if !at.IsZero() {
		w.timer = time.AfterFunc(time.Until(at), func() { w.fail(context.DeadlineExceeded) })
	}
}

func (w *sender) stop() {
	w.setDeadline(time.Time{})
}

// HeaderOf makes net/http's header of a section's regular fields.
func HeaderOf(fields []Field) http.Header {
	h := make(http.Header, len(fields))
	for i := range fields {
		if f := &fields[i]; !f.kind.pseudo() {
			k := http.CanonicalHeaderKey(f.Name)
			h[k] = append(h[k], f.Value)
		}
	}
	if c := h["Cookie"]; len(c) > 1 { // crumbs, RFC 9113 section 8.2.3
		h["Cookie"] = []string{joinCookies(c)}
	}
	return h
}

func joinCookies(crumbs []string) string {
	s := crumbs[0]
	for _, c := range crumbs[1:] {
		s += "; " + c
	}
	return s
}
