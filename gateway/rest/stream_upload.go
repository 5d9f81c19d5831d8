package rest

import (
	"io"
	"net/http"
	"strings"

	"sluice/gateway/wire"
)

// chunkSize is how much of a raw body becomes one message, bytes.
const chunkSize = 32 << 10

// upload sends the request of a client-streaming RPC, message by message as they come,
// beside the goroutine that answers. A nil upload is one that has been sent.
type upload struct {
	x       *exchange
	kind    bodyKind
	body    io.Reader
	message []byte // for the backend

	control *http.ResponseController
	done    chan struct{} // closed when the goroutine has ended
	// panicked is for the exchange's goroutine to go on with, once this one has ended.
	panicked any
}

// serveUpload answers a request whose body is a stream of messages.
func (x *exchange) serveUpload() {
	in, st := x.startUpload()
	if st != nil {
		x.fail(x.call.Abort(st))
		return
	}
	defer in.stop()
	defer x.call.Close() // before that, so that nothing waits for the backend
	if !x.match.Method.ServerStreaming {
		x.answerUnary(in)
		return
	}
	if x.r.ProtoMajor == 1 && x.r.ContentLength != 0 {
		// The answer may end before its request; the rest must not be in the way of the next.
		x.w.Header().Set("Connection", "close")
	}
	x.answerStream(in)
}

func (x *exchange) startUpload() (*upload, *wire.Status) {
	in := &upload{
		x: x, kind: bodyKindOf(x.match), body: x.r.Body, message: x.buf.message[:0],
		control: http.NewResponseController(x.w), done: make(chan struct{}),
	}
	if x.r.ContentLength == 0 {
		in.body = http.NoBody
	} else if st := in.kind.checkType(x.r); st != nil {
		return nil, st
	}
	zipped, st := isGzipped(x.r)
	if st != nil {
		x.w.Header().Set("Accept-Encoding", encodingGzip)
		return nil, st
	}
	if zipped {
		in.body = &unzipping{from: in.body}
	}
	go in.run()
	return in, nil
}

func (in *upload) run() {
	defer close(in.done)
	defer func() {
		if in.panicked = recover(); in.panicked != nil {
			in.x.call.Abort(refusal(wire.Internal, "the request could not be translated"))
		}
	}()
	send := in.sendValues
	if in.kind == bodyRaw {
		send = in.sendChunks
	}
	if st := send(); st != nil {
		in.x.call.Abort(st) // which the answering side hears of, unless the RPC has ended
	}
}

// sendValues sends a message for each JSON value of the body. It returns what is wrong
// with the request; an RPC that has ended is for the answering side to tell.
func (in *upload) sendValues() *wire.Status {
	v := values{body: in.body, limit: in.x.limits.MaxMessage}
	for n := 1; ; n++ {
		value, err := v.next()
		if err == io.EOF {
			_ = in.x.call.CloseSend()
			return nil
		}
		if err != nil {
			return inMessage(n, in.fromBody(err))
		}
		if ended, st := in.send(value); ended || st != nil {
			return inMessage(n, st)
		}
	}
}

// sendChunks sends the body as it is, in messages of a bounded size. An empty body is an
// empty message, since the path has something to say too.
func (in *upload) sendChunks() *wire.Status {
	chunk := make([]byte, min(chunkSize, max(in.x.limits.MaxMessage/2, 1)))
	for sent := false; ; sent = true {
		n, err := io.ReadAtLeast(in.body, chunk, 1)
		if n > 0 || err == io.EOF && !sent {
			if ended, st := in.send(chunk[:n]); ended || st != nil {
				return st
			}
		}
		if err == io.EOF {
			_ = in.x.call.CloseSend()
			return nil
		}
		if err != nil {
			return in.fromBody(err)
		}
	}
}

// send sends one message, and tells whether the RPC has ended before.
func (in *upload) send(body []byte) (ended bool, st *wire.Status) {
	in.message, st = in.x.decode(in.message[:0], body)
	if st != nil {
		return false, in.hint(body, st)
	}
	return in.x.call.Send(Message{Data: in.message}, false) != nil, nil
}

// hint adds what to do to the fault of a body that is an array of messages.
func (in *upload) hint(body []byte, st *wire.Status) *wire.Status {
	if in.kind != bodyValues || body[0] != '[' || !in.x.match.whole || in.x.match.input.form != formObject {
		return st
	}
	said := *st
	said.Message += "; send the messages one after another, without brackets and commas"
	return &said
}

// fromBody is the status for a body that cannot be read on.
func (in *upload) fromBody(err error) *wire.Status {
	if st, ok := err.(*wire.Status); ok {
		return st
	}
	_, zipped := in.body.(*unzipping)
	return in.x.bodyFault(err, zipped)
}

// inMessage says in which message of a stream a fault is.
func inMessage(n int, st *wire.Status) *wire.Status {
	if st == nil {
		return nil
	}
	said := *st
	said.Message = refusal(0, "message %d of the request: %s", n, strings.TrimPrefix(st.Message, "sluice: ")).Message
	return &said
}

// stop waits for the goroutine, which reads no further. The RPC has ended, so that
// nothing waits for the backend.
func (in *upload) stop() {
	if in == nil {
		return
	}
	select {
	case <-in.done:
	default:
		if interrupt(in.x.w, in.x.r) != nil {
			in.x.r.Body.Close()
		}
		<-in.done
	}
	if v := in.panicked; v != nil {
		in.panicked = nil
		panic(v)
	}
}
