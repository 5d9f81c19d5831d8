package rest

import (
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/gateway/wire"
)

// exchange is one HTTP request that an RPC answers.
type exchange struct {
	w      http.ResponseWriter
	r      *http.Request
	call   Call
	match  Match
	limits Limits
	until  time.Time // the caller's deadline, zero when it has none
	buf    *buffers
}

// buffers are what an exchange writes its messages into.
type buffers struct {
	body    []byte // of the request, as it came
	message []byte // for the backend
	answer  []byte // for the caller
	zipped  []byte // the answer, compressed
}

// maxPooled is the size from which a buffer is not kept for the next exchange, bytes.
const maxPooled = 64 << 10

var bufferPool = sync.Pool{New: func() any { return new(buffers) }}

func (b *buffers) release() {
	for _, p := range [...]*[]byte{&b.body, &b.message, &b.answer, &b.zipped} {
		if cap(*p) > maxPooled {
			*p = nil
		}
	}
	bufferPool.Put(b)
}

// serve answers a request by a call that has been opened.
func serve(w http.ResponseWriter, r *http.Request, o opened) {
	x := exchange{w: w, r: r, call: o.call, match: o.match, limits: o.call.Limits(), buf: bufferPool.Get().(*buffers)}
	defer x.buf.release()
	if o.timeout > 0 {
		x.until = time.Now().Add(o.timeout)
	}
	if x.limits.MaxMessage <= 0 {
		x.limits.MaxMessage = DefaultMaxMessage
	}
	switch {
	case x.match.Method.ClientStreaming && bodyKindOf(x.match) != bodyNone:
		x.serveUpload()
	case !x.sendOne():
	case x.match.Method.ServerStreaming:
		x.answerStream(nil)
	default:
		x.answerUnary(nil)
	}
}

// sendOne sends the request as the only message. It answers itself when the request is
// at fault.
func (x *exchange) sendOne() bool {
	body, st := x.readBody(x.buf.body[:0])
	x.buf.body = body
	if st == nil {
		x.buf.message, st = x.decode(x.buf.message[:0], body)
	}
	if st != nil {
		x.fail(x.call.Abort(st))
		return false
	}
	// An error means that the RPC has ended; Receive says how.
	_ = x.call.Send(Message{Data: x.buf.message}, true)
	return true
}

// decode appends the message that the request means with that body, or that part of it.
func (x *exchange) decode(dst, body []byte) ([]byte, *wire.Status) {
	message, err := x.match.Decode(dst, x.match, x.r.URL.RawQuery, body, x.r.Header.Get("Content-Type"), x.limits)
	if err != nil {
		return message, statusFrom(err)
	}
	return message, nil
}

// answerUnary answers with the one message of the response. in is what still sends the
// request, or nil.
func (x *exchange) answerUnary(in *upload) {
	body, contentType, st := x.receiveOne()
	in.stop()
	if st != nil {
		x.failEnded(st)
		return
	}
	h := x.w.Header()
	if md, err := x.call.Header(); err == nil {
		addAnswerMetadata(h, md)
		x.addDisposition(md)
	}
	trailers := x.addTrailer(x.call.Trailer(), "Grpc-Trailer-")
	if x.match.RawAnswer() {
		h["Content-Type"] = []string{contentType}
	} else {
		h["Content-Type"] = typeJSON
		h["X-Content-Type-Options"] = noSniffing
	}
	x.writeWhole(body, contentType, trailers)
}

// receiveOne takes the message and the end of a response, and writes the message as the
// caller gets it.
func (x *exchange) receiveOne() (body []byte, contentType string, _ *wire.Status) {
	msg, err := x.call.Receive()
	if err == io.EOF {
		return nil, "", x.call.Abort(refusalHTTP(http.StatusInternalServerError, wire.Unimplemented, "the backend ended the RPC without a message"))
	}
	if err != nil {
		return nil, "", statusFrom(err)
	}
	body, contentType, st := x.encode(x.buf.answer[:0], msg)
	x.buf.answer = body
	if st != nil {
		return nil, "", st
	}
	switch _, err = x.call.Receive(); err {
	case io.EOF:
		return body, contentType, nil
	case nil:
		return nil, "", x.call.Abort(refusalHTTP(http.StatusInternalServerError, wire.Unimplemented, "the backend answered with more than one message"))
	}
	return nil, "", statusFrom(err)
}

// encode appends a message of the response as the caller gets it. An error has ended
// the RPC.
func (x *exchange) encode(dst []byte, msg Message) ([]byte, string, *wire.Status) {
	if msg.Compressed {
		return dst, "", x.call.Abort(refusal(wire.Internal, "the backend compressed a message, which it was not asked to"))
	}
	if len(msg.Data) > x.limits.MaxMessage {
		return dst, "", x.call.Abort(refusalHTTP(http.StatusInternalServerError, wire.ResourceExhausted,
			"the backend's message is larger than %d bytes: the limit of translated messages", x.limits.MaxMessage))
	}
	body, contentType, err := x.match.Encode(dst, msg.Data, EncodeOptions{})
	if err != nil {
		return body, "", x.call.Abort(statusFrom(err))
	}
	return body, contentType, nil
}

// writeWhole writes an answer whose fields are set.
func (x *exchange) writeWhole(body []byte, contentType string, trailers bool) {
	h := x.w.Header()
	if len(body) >= gzipFrom && isCompressible(contentType) {
		h["Vary"] = append(h["Vary"], variesEncoding)
		if acceptsGzip(x.r.Header) {
			x.buf.zipped = gzipped(x.buf.zipped[:0], body)
			body = x.buf.zipped
			h["Content-Encoding"] = codedGzip
		}
	}
	if x.r.ProtoMajor > 1 || !trailers { // HTTP/1 has trailers only without a length
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	x.w.WriteHeader(http.StatusOK)
	if x.r.Method == http.MethodHead {
		return
	}
	if len(body) > maxPooled && x.r.ProtoMajor == 1 {
		http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(writePatience(len(body))))
	}
	x.w.Write(body) // an error means that the caller has gone; the RPC has ended before
}

// writePatience is how long a caller on HTTP/1 may take over so many bytes; the engine of
// HTTP/2 sees to its own.
func writePatience(size int) time.Duration {
	return stalledAfter + time.Duration(size/leastRate)*time.Second
}

const (
	// stalledAfter is how long a caller that takes nothing is waited for.
	stalledAfter = 5 * time.Minute
	// leastRate is the slowest that a caller may take a large answer, bytes a second.
	leastRate = 10 << 10
)

// fail answers with an error that was found before the backend answered.
func (x *exchange) fail(st *wire.Status) {
	failWith(x.w, x.r, st, x.match.Method.Schema)
}

// failEnded answers with the error that the RPC ended with. The metadata of its header
// and of its end become fields alike, since all of it is about the error.
func (x *exchange) failEnded(st *wire.Status) {
	h := x.w.Header()
	if md, err := x.call.Header(); err == nil {
		addAnswerMetadata(h, md)
	}
	addAnswerMetadata(h, x.call.Trailer())
	x.fail(st)
}

// addAnswerMetadata is addMetadata, but where the gateway speaks of CORS, backends do not.
func addAnswerMetadata(answer, md http.Header) {
	if answer["Access-Control-Allow-Origin"] != nil {
		md = maps.Clone(md)
		maps.DeleteFunc(md, func(name string, _ []string) bool { return strings.HasPrefix(name, "Access-Control-") })
	}
	addMetadata(answer, "", md)
}

// addDisposition takes over what a backend says of bytes that it gives as they are. All
// else about the content is the gateway's to say.
func (x *exchange) addDisposition(md http.Header) {
	if !x.match.RawAnswer() {
		return
	}
	for _, name := range [...]string{"Content-Disposition", "Content-Language"} {
		if v := md[name]; v != nil {
			x.w.Header()[name] = v
		}
	}
}

// takesTrailers tells whether the caller understands trailers (RFC 9110, section 10.1.4).
func (x *exchange) takesTrailers() bool {
	for _, line := range x.r.Header["Te"] {
		for element := range strings.SplitSeq(line, ",") {
			if coding, _, ok := weighted(element); ok && strings.EqualFold(coding, "trailers") {
				return true
			}
		}
	}
	return false
}

// addTrailer writes the metadata of the RPC's end: as trailers when the caller
// understands them, else as fields with the prefix, and not at all without a prefix. It
// tells whether there are trailers.
func (x *exchange) addTrailer(md http.Header, prefix string) (trailers bool) {
	if len(md) > 0 && x.takesTrailers() {
		addMetadata(x.w.Header(), http.TrailerPrefix, md)
		return true
	}
	if prefix != "" {
		addMetadata(x.w.Header(), prefix, md)
	}
	return false
}
