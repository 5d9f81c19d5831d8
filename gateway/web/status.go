package web

import (
	"encoding/base64"
	"net/http"
	"strings"

	"sluice/gateway/wire"
)

// Fail ends a gRPC-Web request with a status before any message: in header fields,
// with an empty body and HTTP status 200, as gRPC-Web has it. Of its body the
// caller need not have read anything.
func Fail(w http.ResponseWriter, r *http.Request, c *CORS, st *wire.Status) {
	contentType := r.Header.Get("Content-Type")
	h := w.Header()
	h.Set("Content-Type", Type(NativeType(contentType), AnswersText(contentType, r.Header.Get("Accept"))))
	setStatus(h, "", st)
	c.Set(h, r)
	w.WriteHeader(http.StatusOK)
}

// setStatus sets the fields of a status, their names behind prefix.
func setStatus(h http.Header, prefix string, st *wire.Status) {
	h[prefix+"Grpc-Status"] = []string{string(wire.AppendStatus(nil, st.Code))}
	h[prefix+"Grpc-Message"] = []string{string(wire.AppendMessage(nil, st.Message))}
	delete(h, prefix+"Grpc-Status-Details-Bin")
	if len(st.Details) > 0 {
		h[prefix+"Grpc-Status-Details-Bin"] = []string{base64.RawStdEncoding.EncodeToString(st.Details)}
	}
}

// reply is the response as the gateway's own side gives it, gRPC by net/http's
// conventions, on its way to the library. The library takes a header that was
// written for the beginning of a body, and would put an empty frame of trailers
// behind a status that stands in the header; held back, such a header is what the
// library makes of a response without body, in both of its transports.
type reply struct {
	http.ResponseWriter
	started bool // the header has been written
	ended   bool // the header has the status: there is no body
}

func (p *reply) WriteHeader(int) {
	if p.started || p.ended {
		return
	}
	p.Header().Del("Content-Length")
	if _, p.ended = p.Header()["Grpc-Status"]; p.ended {
		return
	}
	p.started = true
	p.ResponseWriter.WriteHeader(http.StatusOK)
}

func (p *reply) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	if p.ended {
		return len(b), nil
	}
	return p.ResponseWriter.Write(b)
}

func (p *reply) Flush() {
	p.WriteHeader(http.StatusOK)
	if f, ok := p.ResponseWriter.(http.Flusher); ok && !p.ended {
		f.Flush()
	}
}

// fail replaces the end by another status, whatever it was.
func (p *reply) fail(st *wire.Status) {
	h := p.Header()
	for name := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			delete(h, name)
		}
	}
	prefix := ""
	if p.started {
		prefix = http.TrailerPrefix
	}
	setStatus(h, prefix, st)
}
