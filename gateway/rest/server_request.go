package rest

import (
	"compress/gzip"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"sluice/gateway/wire"
)

// A body that is wanted as a whole must make progress: this many bytes in this time.
// That is the least rate of 100 bytes a second that holds for HTTP/2 too.
const (
	progressBytes = 6000
	progressTime  = time.Minute
)

// openingOf is what a request says of its RPC, all but the method.
func openingOf(r *http.Request) (*Opening, *wire.Status) {
	timeout, st := timeoutOf(r.Header)
	if st != nil {
		return nil, st
	}
	metadata, st := metadataOf(r)
	if st != nil {
		return nil, st
	}
	delete(metadata, serverTimeout)
	return &Opening{Metadata: metadata, Timeout: timeout, Codec: "proto"}, nil
}

// The fields by which callers of HTTP set a deadline: in the form of gRPC, and in
// seconds.
const (
	grpcTimeout   = "Grpc-Timeout"
	serverTimeout = "X-Server-Timeout"
)

// timeoutOf is the time that the caller gives, 0 when it does not say: of two fields the
// shorter one. A caller that leaves no time at all has a nanosecond.
func timeoutOf(h http.Header) (time.Duration, *wire.Status) {
	timeout := time.Duration(0)
	for _, field := range [...]struct {
		name, want string
		parse      func(string) (time.Duration, bool)
	}{
		{grpcTimeout, `up to 8 digits and a unit of H, M, S, m, u, n, as in "500m"`, wire.ParseTimeout},
		{serverTimeout, `seconds, as in "1.5"`, parseSeconds},
	} {
		values := h[field.name]
		if len(values) == 0 {
			continue
		}
		d, ok := field.parse(values[0])
		if !ok || len(values) > 1 {
			return 0, refusal(wire.InvalidArgument, "header field %s is %q: want %s", field.name, strings.Join(values, ", "), field.want)
		}
		if d = max(d, 1); timeout == 0 || d < timeout {
			timeout = d
		}
	}
	return timeout, nil
}

// maxSecondsLen bounds the text of a timeout in seconds, bytes.
const maxSecondsLen = 20

// parseSeconds reads decimal seconds, "30" or "0.25", up to the 292 years that a
// time.Duration holds. What is below a nanosecond is dropped.
func parseSeconds(s string) (time.Duration, bool) {
	const digits = "0123456789"
	if s == "" || len(s) > maxSecondsLen || strings.Trim(s, digits+".") != "" || s[0] == '.' || s[len(s)-1] == '.' {
		return 0, false
	}
	d, err := time.ParseDuration(s + "s")
	return d, err == nil
}

// bodyKind is what a request's body is expected to be.
type bodyKind uint8

const (
	bodyNone   bodyKind = iota // the binding has no body
	bodyJSON                   // one JSON document
	bodyValues                 // JSON documents one after another
	bodyRaw                    // bytes of a google.api.HttpBody
)

func bodyKindOf(m Match) bodyKind {
	switch {
	case m.Binding != nil && m.Binding.Body == "":
		return bodyNone
	case m.Raw():
		return bodyRaw
	case m.Method.ClientStreaming:
		return bodyValues
	}
	return bodyJSON
}

// checkType refuses a body that is not of its kind, by what the request says of it.
func (k bodyKind) checkType(r *http.Request) *wire.Status {
	types := r.Header["Content-Type"]
	if len(types) > 1 {
		return refusalHTTP(http.StatusUnsupportedMediaType, wire.InvalidArgument, "%d fields say Content-Type: want one", len(types))
	}
	if k == bodyRaw || len(types) == 1 && types[0] == "application/json" {
		return nil
	}
	said := ""
	if len(types) == 1 {
		said = types[0]
	}
	base, parameters, err := mime.ParseMediaType(said)
	charset, other := parameters["charset"]
	switch {
	case err != nil || !k.takes(base):
	case other && !strings.EqualFold(charset, "utf-8"):
		return refusalHTTP(http.StatusUnsupportedMediaType, wire.InvalidArgument, "the body's charset is %q: want utf-8", charset)
	default:
		return nil
	}
	if said == "" {
		return refusalHTTP(http.StatusUnsupportedMediaType, wire.InvalidArgument, "the request has a body without Content-Type: want %s", k.wants())
	}
	hint := ""
	if base == "application/x-www-form-urlencoded" {
		hint = " (curl: -H 'content-type: application/json')" // it says so of all that it posts
	}
	return refusalHTTP(http.StatusUnsupportedMediaType, wire.InvalidArgument, "the body is of Content-Type %q: want %s%s", said, k.wants(), hint)
}

func (k bodyKind) takes(mediaType string) bool {
	return mediaType == "application/json" || k == bodyValues && isLines(mediaType)
}

func (k bodyKind) wants() string {
	if k == bodyValues {
		return "application/x-ndjson or application/json"
	}
	return "application/json"
}

// isLines tells the names that JSON values line by line go by.
func isLines(mediaType string) bool {
	switch mediaType {
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "application/json-lines":
		return true
	}
	return false
}

// isGzipped tells whether the body is compressed, by the one encoding that is read.
func isGzipped(r *http.Request) (bool, *wire.Status) {
	said := r.Header["Content-Encoding"]
	switch {
	case len(said) == 0, len(said) == 1 && (said[0] == "" || strings.EqualFold(said[0], "identity")):
		return false, nil
	case len(said) == 1 && (strings.EqualFold(said[0], encodingGzip) || strings.EqualFold(said[0], "x-gzip")):
		return true, nil
	}
	return false, refusalHTTP(http.StatusUnsupportedMediaType, wire.InvalidArgument, "the body is of Content-Encoding %q: want gzip, or none", strings.Join(said, ", "))
}

// readBody appends a body that is wanted as a whole, decompressed.
func (x *exchange) readBody(dst []byte) ([]byte, *wire.Status) {
	kind := bodyKindOf(x.match)
	if x.r.ContentLength == 0 {
		return dst, nil
	}
	if kind == bodyNone {
		return dst, x.checkNoBody()
	}
	zipped, st := isGzipped(x.r)
	if st != nil {
		x.w.Header().Set("Accept-Encoding", encodingGzip)
		return dst, st
	}
	if x.r.ContentLength > 0 || len(x.r.Header["Content-Type"]) > 0 {
		if st := kind.checkType(x.r); st != nil {
			return dst, st
		}
	}
	if x.r.ContentLength > int64(x.limits.MaxMessage) {
		return dst, x.tooLarge(zipped)
	}
	body, st := x.readAll(dst, zipped)
	if st == nil && len(body) > 0 && x.r.ContentLength < 0 {
		st = kind.checkType(x.r)
	}
	return body, st
}

// checkNoBody refuses content that the method has no place for: it would be lost
// without a word.
func (x *exchange) checkNoBody() *wire.Status {
	if x.limits.IgnoreUnknownFields {
		return nil
	}
	if x.r.ContentLength < 0 {
		in := x.steadyBody()
		defer in.done()
		if _, err := appendAll(nil, in, 0); err != errTooLong {
			return x.bodyFault(err, false)
		}
	}
	return refusal(wire.InvalidArgument, "%s %s takes no body, and the request has one", x.r.Method, x.match.Binding.Template)
}

func (x *exchange) readAll(dst []byte, zipped bool) ([]byte, *wire.Status) {
	in := x.steadyBody()
	defer in.done()
	var from io.Reader = in
	if zipped {
		from = &unzipping{from: in}
	}
	body, err := appendAll(dst, from, x.limits.MaxMessage)
	return body, x.bodyFault(err, zipped)
}

// bodyFault says why a body could not be read; nil is none.
func (x *exchange) bodyFault(err error, zipped bool) *wire.Status {
	switch {
	case err == nil:
		return nil
	case err == errTooLong:
		return x.tooLarge(zipped)
	case isTimeout(err) && !x.until.IsZero() && !time.Now().Before(x.until):
		return refusal(wire.DeadlineExceeded, "the deadline has passed before the request had come")
	case isTimeout(err):
		return refusalHTTP(http.StatusRequestTimeout, wire.DeadlineExceeded, "reading the request's body: fewer than %d bytes came in %v", progressBytes, progressTime)
	case zipped:
		return refusal(wire.InvalidArgument, "reading and decompressing the request's body: %v", err)
	}
	return refusal(wire.InvalidArgument, "reading the request's body: %v", err)
}

func (x *exchange) tooLarge(zipped bool) *wire.Status {
	how := ""
	if zipped {
		how = ", decompressed"
	}
	return refusalHTTP(http.StatusRequestEntityTooLarge, wire.ResourceExhausted, "the request's message is larger than %d bytes%s: the limit of translated messages", x.limits.MaxMessage, how)
}

// isTimeout tells a read deadline, of net/http's connections and of our own streams.
func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// steadyBody reads a body that must make progress.
type steadyBody struct {
	body    io.Reader
	control *http.ResponseController
	until   time.Time // the caller's deadline, zero when it has none
	got     int       // bytes since the read deadline was set; -1 when there is none
}

func (x *exchange) steadyBody() *steadyBody {
	return &steadyBody{body: x.r.Body, control: http.NewResponseController(x.w), until: x.until, got: -1}
}

func (p *steadyBody) Read(b []byte) (int, error) {
	if p.got < 0 || p.got >= progressBytes {
		at := time.Now().Add(progressTime)
		if !p.until.IsZero() && p.until.Before(at) {
			at = p.until
		}
		_ = p.control.SetReadDeadline(at) // a test's recorder has none
		p.got = 0
	}
	n, err := p.body.Read(b)
	p.got += n
	return n, err
}

// done takes the deadline back: the rest of the exchange is not bound by it.
func (p *steadyBody) done() { _ = p.control.SetReadDeadline(time.Time{}) }

// unzipping reads gzip. It starts with the first read, which may wait.
type unzipping struct {
	from io.Reader
	z    *gzip.Reader
}

func (u *unzipping) Read(b []byte) (int, error) {
	if u.z == nil {
		z, err := gzip.NewReader(u.from)
		if err != nil {
			return 0, err // io.EOF: nothing was sent, compressed or not
		}
		u.z = z
	}
	return u.z.Read(b)
}
