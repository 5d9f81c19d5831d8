package rest

import (
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"sluice/gateway/wire"
)

// serveStream passes messages both ways at once. The answer is HTTP 200 whatever comes of
// the RPC: how it ended is said by the last envelope.
func (x *connectExchange) serveStream() {
	_ = x.ctl.EnableFullDuplex() // HTTP/2 always is; a test's recorder never
	up := &connectUpload{x: x, whole: make(chan struct{}), done: make(chan struct{})}
	x.up = up
	go up.run()
	err := x.download()
	if err == errCallerGone {
		x.call.Close()
	} else {
		x.endStream(up.status(err))
	}
	up.stop()
}

var errCallerGone = &wire.Status{Code: wire.Canceled, Message: "sluice: the caller has gone", Gateway: true}

// download passes the backend's messages on, each as soon as it comes. It returns how the
// RPC ended, nil for OK.
func (x *connectExchange) download() *wire.Status {
	header, err := x.call.Header()
	if err != nil {
		return connectStatus(err)
	}
	x.startStream(header)
	if x.ctl.Flush() != nil {
		return errCallerGone
	}
	for {
		m, err := x.call.Receive()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return connectStatus(err)
		}
		data, compressed, st := x.outgoing(m)
		if st != nil {
			return x.call.Abort(st)
		}
		if x.writeEnvelope(data, compressed) != nil {
			return errCallerGone
		}
	}
}

// startStream writes the header of the answer, once.
func (x *connectExchange) startStream(header http.Header) {
	h := x.w.Header()
	addMetadata(h, "", header)
	h.Set("Content-Type", x.q.contentType)
	if name := x.encoding(); name != "" {
		h.Set(fieldStreamEncoding, name)
	}
	if x.r.ProtoMajor == 1 && !x.up.endsSoon() {
		// An answer may end before its request; the rest must not be in the way of the next.
		h.Set("Connection", "close")
	}
	x.w.WriteHeader(http.StatusOK)
	x.started = true
}

func (x *connectExchange) writeEnvelope(data []byte, compressed bool) error {
	p := wire.Prefix{Length: uint32(len(data))}
	if compressed {
		p.Flags = wire.FlagCompressed
	}
	var space [wire.PrefixLen]byte
	if _, err := x.w.Write(wire.AppendPrefix(space[:0], p)); err != nil {
		return err
	}
	if _, err := x.w.Write(data); err != nil {
		return err
	}
	return x.ctl.Flush()
}

// endStream writes the last envelope. It is flushed, because the handler may have to
// wait for the caller's side.
func (x *connectExchange) endStream(st *wire.Status) {
	if !x.started {
		x.startStream(nil)
	}
	x.w.Write(appendEndStream(nil, st, x.call.Trailer(), x.method))
	_ = x.ctl.Flush() // a caller that has gone misses nothing
}

// connectUpload passes the caller's messages on, in a goroutine of its own.
type connectUpload struct {
	x     *connectExchange
	whole chan struct{}               // closed when the request has been read to its end
	done  chan struct{}               // closed when the goroutine has ended
	fault atomic.Pointer[wire.Status] // what ended the RPC from this side
	// panicked is read after done.
	panicked any
}

func (u *connectUpload) run() {
	defer close(u.done)
	defer func() {
		if u.panicked = recover(); u.panicked != nil {
			u.x.call.Abort(connectFault(wire.Internal, 0, "the request could not be translated"))
		}
	}()
	if st := u.forward(); st != nil {
		u.fault.Store(st)
		u.x.call.Abort(st)
	}
}

// forward returns why the RPC cannot go on. An RPC that has ended is not told of here:
// who receives hears of it.
func (u *connectUpload) forward() *wire.Status {
	x := u.x
	in := envelopeReader{body: x.r.Body, limit: x.limits.MaxMessage}
	var buf []byte
	for n := 0; ; n++ {
		data, compressed, err := in.next()
		if err == io.EOF {
			close(u.whole)
			if n == 0 && x.takesOne() {
				return connectFault(wire.Unimplemented, 0, "method "+strconv.Quote(x.q.method)+" takes one message, none came")
			}
			x.call.CloseSend()
			return nil
		}
		if err != nil {
			return bodyFault(err, x.limits.MaxMessage)
		}
		if n == 1 && x.takesOne() {
			return connectFault(wire.Unimplemented, 0, "method "+strconv.Quote(x.q.method)+" takes one message, a second came")
		}
		if compressed && x.q.encoding == "" {
			return connectFault(wire.Internal, 0, "a message is compressed, and connect-content-encoding does not say how")
		}
		m, st := x.incoming(reuse(buf), data, compressed)
		if st != nil {
			return st
		}
		if x.q.json {
			buf = m.Data
		}
		if x.call.Send(m, false) != nil {
			return nil
		}
	}
}

// takesOne tells a method that is known not to stream from the caller's side.
func (x *connectExchange) takesOne() bool { return x.method != nil && !x.method.ClientStreaming }

// status is how the RPC ended, seen from both sides.
func (u *connectUpload) status(st *wire.Status) *wire.Status {
	if fault := u.fault.Load(); fault != nil && st != nil {
		return fault
	}
	return st
}

// endingTime is how long an answer over HTTP/1 waits for the end of its request before it
// gives up the connection: callers who have said all are only being read.
const endingTime = 20 * time.Millisecond

// endsSoon tells whether the request has been read to its end.
func (u *connectUpload) endsSoon() bool {
	timer := time.NewTimer(endingTime)
	defer timer.Stop()
	select {
	case <-u.whole:
		return true
	case <-timer.C:
		return false
	}
}

// stop waits for the goroutine, which may be waiting for a caller that has nothing more
// to say, or for a backend that does not listen.
func (u *connectUpload) stop() {
	u.x.call.Close()
	select {
	case <-u.whole: // it waits for nobody
	case <-u.done:
	default:
		_ = interrupt(u.x.w, u.x.r)
	}
	<-u.done
	if u.panicked != nil {
		panic(u.panicked)
	}
}
