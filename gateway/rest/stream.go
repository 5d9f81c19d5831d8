package rest

import (
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"sluice/gateway/wire"
)

const (
	// settleTime is how long the fields of an answer are held back once the backend has
	// sent its own: an error that follows at once still gets a status of its own.
	settleTime = 100 * time.Millisecond
	// duplexPatience is how long they are held back for a caller who may want to see them
	// before it goes on to send.
	duplexPatience = time.Second
	// keepAliveTime is how long an event stream may be silent: less than what proxies on
	// the way put up with.
	keepAliveTime = 15 * time.Second
	// deadlineStep is how often the write deadline of a stream is renewed: that costs more
	// than a small message.
	deadlineStep = 30 * time.Second
)

// streaming writes the answer of a streaming RPC. The exchange's goroutine gives it
// messages; a timer opens the answer when the first one is long in coming, and keeps the
// connection in use.
type streaming struct {
	x        *exchange
	format   *format
	control  *http.ResponseController
	messages int // so many have been written. The exchange's goroutine has it

	mu       sync.Mutex  // guards the fields below, and all writing
	metadata http.Header // of the backend; nil until it is known
	begun    bool        // the fields are out
	stopped  bool        // nobody writes any more
	zip      *gzip.Writer
	timer    *time.Timer
	deadline time.Time // when the write deadline was last set
}

// answerStream answers with the messages of the response as they come. in is what still
// sends the request, or nil.
func (x *exchange) answerStream(in *upload) {
	a := &streaming{x: x, format: formatOf(x.r.Header), control: http.NewResponseController(x.w)}
	if x.match.RawAnswer() {
		a.format = raw
	}
	defer a.stop()
	a.start(in != nil)
	if md, err := x.call.Header(); err == nil {
		a.settle(md)
	}
	for {
		msg, err := x.call.Receive()
		if err != nil {
			a.end(in, err)
			return
		}
		body, contentType, st := x.encode(append(x.buf.answer[:0], a.before()...), msg)
		x.buf.answer = append(body, a.format.behind...)
		if st != nil {
			in.stop()
			a.fail(st)
			return
		}
		if x.r.Method == http.MethodHead {
			a.open(contentType)
			return
		}
		if err := a.write(x.buf.answer, contentType); err != nil {
			x.call.Abort(refusal(wire.Canceled, "writing to the caller: %v", err))
			in.stop()
			return
		}
		a.messages++
	}
}

// before is what goes before the next message.
func (a *streaming) before() string {
	if a.messages == 0 {
		return a.format.first
	}
	return a.format.next
}

// start arms the timer for an answer that may have to open before the backend says
// anything.
func (a *streaming) start(duplex bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.format == raw: // whose content type is in the first message
	case a.format.keepAlive != "":
		a.timer = time.AfterFunc(keepAliveTime, a.tick)
	case duplex:
		a.timer = time.AfterFunc(duplexPatience, a.tick)
	}
}

// settle takes the backend's metadata, and lets the answer open soon.
func (a *streaming) settle(md http.Header) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.metadata = md
	switch {
	case a.begun || a.format == raw:
	case a.timer == nil:
		a.timer = time.AfterFunc(settleTime, a.tick)
	default:
		a.timer.Reset(settleTime)
	}
}

// tick opens the answer, or keeps its connection in use. Errors are left to the writing
// of messages, and to the request's context.
func (a *streaming) tick() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return
	}
	if !a.begun {
		a.begin(a.format.contentType)
	}
	a.put([]byte(a.format.keepAlive))
	if a.format.keepAlive != "" {
		a.timer.Reset(keepAliveTime)
	}
}

// stop waits for what the timer is writing. After that nothing is written.
func (a *streaming) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.zip != nil {
		a.zip.Reset(nil)
		gzippers.Put(a.zip)
		a.zip = nil
	}
}

// open sends the fields, if that has not been done.
func (a *streaming) open(contentType string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.begun {
		a.begin(contentType)
	}
}

// write sends a message, after the fields.
func (a *streaming) write(p []byte, contentType string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.begun {
		a.begin(contentType)
	}
	if a.format.keepAlive != "" {
		a.timer.Reset(keepAliveTime)
	}
	return a.put(p)
}

// put writes p and sees that it leaves.
func (a *streaming) put(p []byte) error {
	a.renewDeadline()
	if a.zip == nil {
		if _, err := a.x.w.Write(p); err != nil {
			return err
		}
		return a.control.Flush()
	}
	if _, err := a.zip.Write(p); err != nil {
		return err
	}
	if err := a.zip.Flush(); err != nil {
		return err
	}
	return a.control.Flush()
}

// renewDeadline bounds how long a caller on HTTP/1 may take nothing; the engine of
// HTTP/2 sees to its own.
func (a *streaming) renewDeadline() {
	if a.x.r.ProtoMajor != 1 {
		return
	}
	if now := time.Now(); now.Sub(a.deadline) > deadlineStep {
		a.deadline = now
		a.control.SetWriteDeadline(now.Add(stalledAfter))
	}
}

// end ends the answer as the RPC has ended, with io.EOF or a status.
func (a *streaming) end(in *upload, err error) {
	in.stop()
	if err != io.EOF {
		a.fail(statusFrom(err))
		return
	}
	last := a.format.end
	if a.messages == 0 {
		last = a.format.endEmpty
	}
	a.open("")
	a.finish(nil, []byte(last))
}

// fail ends the answer with an error, in a way that nobody takes for success.
func (a *streaming) fail(st *wire.Status) {
	if a.withhold() {
		a.x.failEnded(st)
		return
	}
	if a.format == raw {
		panic(http.ErrAbortHandler) // bytes of any type have no place for an error
	}
	text := a.format.failNext
	if a.messages == 0 {
		text = a.format.failFirst
	}
	last := appendFailure([]byte(text), st, detailsOf(st), a.x.match.Method.Schema)
	a.finish(st, append(last, a.format.failBehind...))
}

// withhold gives the answer up when nothing of it is out, and tells whether it did.
func (a *streaming) withhold() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = !a.begun
	return a.stopped
}

// finish writes the last bytes, and trailers for those who understand them. The timer
// has nothing to say after them.
func (a *streaming) finish(st *wire.Status, last []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	a.renewDeadline()
	if a.x.takesTrailers() {
		a.x.addTrailer(a.x.call.Trailer(), "")
		a.addStatus(st)
	}
	// An error means that the caller has gone, and the RPC has ended before.
	if a.zip != nil {
		a.zip.Write(last)
		a.zip.Close()
	} else if len(last) > 0 {
		a.x.w.Write(last)
	}
}

// addStatus tells the end of the RPC in trailers as gRPC does: a line with an error looks
// like a message that has a field of that name.
func (a *streaming) addStatus(st *wire.Status) {
	h := a.x.w.Header()
	code := wire.OK
	if st != nil {
		code = st.Code.Clamp()
		h[http.TrailerPrefix+"Grpc-Message"] = []string{string(wire.AppendMessage(nil, st.Message))}
	}
	h[http.TrailerPrefix+"Grpc-Status"] = []string{strconv.FormatUint(uint64(code), 10)}
}

// begin writes the status and the fields. contentType is that of raw messages.
func (a *streaming) begin(contentType string) {
	a.begun = true
	if a.timer != nil && a.format.keepAlive == "" {
		a.timer.Stop()
	}
	h := a.x.w.Header()
	addAnswerMetadata(h, a.metadata)
	a.x.addDisposition(a.metadata)
	if a.format != raw {
		contentType = a.format.contentType
		h["X-Content-Type-Options"] = noSniffing
		h["Vary"] = append(h["Vary"], variesStreaming)
	} else if isCompressible(contentType) {
		h["Vary"] = append(h["Vary"], variesEncoding)
	}
	if contentType != "" { // raw, and no message
		h["Content-Type"] = []string{contentType}
	}
	if a.format == events && h["Cache-Control"] == nil {
		h["Cache-Control"] = []string{"no-cache"}
	}
	if h["X-Accel-Buffering"] == nil {
		h["X-Accel-Buffering"] = []string{"no"} // which proxies heed that else hold messages back
	}
	if acceptsGzip(a.x.r.Header) && isCompressible(contentType) {
		h["Content-Encoding"] = codedGzip
		a.zip = gzippers.Get().(*gzip.Writer)
		a.zip.Reset(a.x.w)
	}
	a.x.w.WriteHeader(http.StatusOK)
}
