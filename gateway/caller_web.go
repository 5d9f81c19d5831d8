package gateway

import (
	"errors"
	"strconv"
	"strings"

	"sluice/gateway/h2"
	"sluice/gateway/route"
	"sluice/gateway/web"
	"sluice/gateway/wire"
)

// webCaller speaks gRPC-Web to a stream of HTTP/2. Its messages are gRPC's, so that
// the relay passes them on as frames; only the content type is another, the trailers
// come as a last message, and of text everything is base64.
type webCaller struct {
	*h2.Stream
	origin  string // of the page that calls, empty for others
	rule    *route.Rule
	textIn  bool // the request is base64
	textOut bool // the response is
	passing bool // the backend speaks gRPC-Web too, and gets everything as it is

	// Guarded by the RPC's mutex.
	frames  web.RequestFrames
	decoder web.TextDecoder
	surplus int    // of text, that the caller is to have back; negative what it has had too early
	buf     []byte // scratch
	replied bool
	back    textReturn
}

// newWebCaller reads what the request says of its form. It answers in text whoever
// accepts that, and else in the form of the request.
func newWebCaller(s *h2.Stream, h *h2.Head) *webCaller {
	w := &webCaller{Stream: s, textIn: wire.KindOf(h.ContentType) == wire.KindGRPCWebText}
	w.textOut = w.textIn
	if accept, ok := h.Get("accept"); ok {
		switch wire.KindOf(accept) {
		case wire.KindGRPCWebText:
			w.textOut = true
		case wire.KindGRPCWeb:
			w.textOut = false
		}
	}
	w.origin, _ = h.Get("origin")
	return w
}

// placed notes the rule, which says what pages of other origins may see.
func (w *webCaller) placed(rule *route.Rule) { w.rule = rule }

// request makes gRPC's fields of gRPC-Web's, in place. A browser cannot decompress
// messages, so none are asked for where the caller does not say.
func (w *webCaller) request(fields []h2.Field) []h2.Field {
	kept, accepts := fields[:0], false
	for _, f := range fields {
		switch f.Name {
		case "content-type":
			f = h2.IndexedField("content-type", "application/grpc"+subtype(f.Value))
		case "content-length", "accept", "x-grpc-web":
			continue
		case "grpc-accept-encoding":
			accepts = true
		}
		kept = append(kept, f)
	}
	if !accepts {
		kept = append(kept, fieldIdentity)
	}
	return kept
}

var fieldIdentity = h2.IndexedField("grpc-accept-encoding", "identity")

// subtype is the codec of a content type of gRPC or gRPC-Web, with its plus sign.
func subtype(contentType string) string {
	if i := strings.IndexByte(contentType, '+'); i >= 0 {
		return contentType[i:]
	}
	return ""
}

// webData is DATA of a caller that speaks gRPC-Web. The caller holds mu.
func (r *rpc) webData(p []byte, end bool, b *h2.Batch) {
	w := r.web
	if w.textIn {
		raw, err := w.decoder.Append(w.buf[:0], p)
		w.buf = raw[:0]
		if err == nil && end {
			err = w.decoder.End()
		}
		if err != nil {
			r.failTranslation(err, b)
			return
		}
		// What base64 takes more than its bytes is nobody's to wait for. Characters that
		// are no bytes yet are credited with it, and not again when they are.
		if w.surplus += len(p) - len(raw); w.surplus > 0 {
			w.Stream.Credit(int32(w.surplus), false, b)
			w.surplus = 0
		}
		p = raw
	}
	err := w.frames.Check(p)
	if err == nil && end {
		err = w.frames.End()
	}
	if err != nil {
		r.failTranslation(err, b)
		return
	}
	r.requestData(p, end, b)
}

// failTranslation ends an RPC whose caller has sent what is not gRPC-Web.
func (r *rpc) failTranslation(err error, b *h2.Batch) {
	var st *wire.Status
	if !errors.As(err, &st) {
		st = badRequest.status()
	}
	r.failAs(badRequest, st.Code, strings.TrimPrefix(st.Message, "sluice: "), b)
}

// SendHeader sends the response's header section, and what comes after it as the
// last message. Trailers-Only stays a header section, with nothing behind it.
func (w *webCaller) SendHeader(f []h2.Field, end bool, b *h2.Batch) {
	switch {
	case w.passing:
		w.pass(f, end, b)
	case w.replied && end:
		w.sendTrailers(f, b)
	case len(f) > 0 && f[0].Name == ":status" && f[0].Value[0] == '1':
	default:
		w.replied = true
		w.Stream.SendHeader(w.response(f), end, b)
	}
}

// pass sends a header section of a backend that speaks gRPC-Web itself. What pages of
// other origins may see is the rule's to say, if it says anything.
func (w *webCaller) pass(f []h2.Field, end bool, b *h2.Batch) {
	if len(f) > 0 && f[0].Name == ":status" && f[0].Value[0] != '1' {
		f = w.allow(f)
	}
	w.Stream.SendHeader(f, end, b)
}

// response makes gRPC-Web's fields of gRPC's.
func (w *webCaller) response(f []h2.Field) []h2.Field {
	fields := make([]h2.Field, 0, len(f))
	for i := range f {
		switch f[i].Name {
		case "content-type":
			form := "application/grpc-web"
			if w.textOut {
				form = "application/grpc-web-text"
			}
			codec := subtype(f[i].Value)
			if codec == "" {
				codec = "+proto"
			}
			fields = append(fields, h2.IndexedField("content-type", form+codec))
		case "grpc-status":
			fields = append(fields, h2.IndexedField("grpc-status", clampedStatus(f[i].Value)))
		case "content-length", "trailer":
		default:
			fields = append(fields, f[i])
		}
	}
	return w.allow(fields)
}

// clampedStatus is a grpc-status that is a number: clients make of others what they like.
func clampedStatus(value string) string {
	if _, ok := wire.ParseStatus(value); !ok {
		return strconv.Itoa(int(wire.Unknown))
	}
	return value
}

// sendTrailers sends the trailers as a message, and ends the stream.
func (w *webCaller) sendTrailers(f []h2.Field, b *h2.Batch) {
	pairs := make([]string, 0, 2*len(f))
	for i := range f {
		value := f[i].Value
		if f[i].Name == "grpc-status" {
			value = clampedStatus(value)
		}
		pairs = append(pairs, f[i].Name, value)
	}
	w.buf = web.AppendTrailers(w.buf[:0], pairs...)
	if w.textOut {
		w.Stream.SendData(web.AppendText(nil, w.buf), true, b)
		return
	}
	w.Stream.SendData(w.buf, true, b)
}

// SendData sends what the backend has sent. An end without trailers does not come by
// here: it is an error, which has some.
func (w *webCaller) SendData(p []byte, end bool, b *h2.Batch) {
	if !w.textOut || w.passing {
		w.Stream.SendData(p, end, b)
		return
	}
	if len(p) == 0 {
		return
	}
	w.buf = web.AppendText(w.buf[:0], p)
	w.back.sent(len(p), len(w.buf))
	w.Stream.SendData(w.buf, end, b)
}

// SetSource puts between the two streams who knows how many bytes the text stands
// for.
func (w *webCaller) SetSource(s h2.Creditor) {
	if !w.textOut || w.passing {
		w.Stream.SetSource(s)
		return
	}
	w.back.to = s
	w.Stream.SetSource(&w.back)
}
