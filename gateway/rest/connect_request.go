package rest

import (
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/gateway/wire"
)

// Fields of the protocol, in the spelling of net/http.
const (
	fieldVersion        = "Connect-Protocol-Version"
	fieldTimeout        = "Connect-Timeout-Ms"
	fieldStreamEncoding = "Connect-Content-Encoding"
	fieldStreamAccept   = "Connect-Accept-Encoding"
)

// connectTypes are the content types that are taken.
const connectTypes = "application/proto, application/json, application/connect+proto, application/connect+json"

const (
	// maxTimeoutDigits is how long a number the protocol allows for a timeout: 115 days
	// in milliseconds.
	maxTimeoutDigits = 10
	// maxEncodings and maxEncodingName bound what a caller may say of compression.
	maxEncodings    = 16
	maxEncodingName = 32
)

// connectRequest is what a request of the protocol says of itself.
type connectRequest struct {
	method      string // "/shop.v1.Cart/Add"
	stream      bool
	json        bool
	contentType string        // of the answer
	timeout     time.Duration // 0 means none
	encoding    string        // of the caller's compressed messages, empty means identity
	accept      []string      // what the answer's may have beside identity
	metadata    http.Header
	query       *connectQuery // nil unless GET
}

func (q *connectRequest) opening() *Opening {
	o := &Opening{Method: q.method, Metadata: q.metadata, Timeout: q.timeout, Codec: "proto"}
	if !q.json {
		o.Encoding, o.AcceptEncoding = q.encoding, strings.Join(q.accept, ",")
	}
	return o
}

// accepts tells whether the answer's messages may have an encoding.
func (q *connectRequest) accepts(encoding string) bool { return slices.Contains(q.accept, encoding) }

// parseConnect reads everything but the message.
func parseConnect(r *http.Request) (*connectRequest, *wire.Status) {
	q := &connectRequest{method: r.URL.EscapedPath()}
	if !wire.ValidPath(q.method) {
		return nil, connectFault(wire.Unimplemented, http.StatusNotFound, "path "+strconv.Quote(q.method)+" is not /package.Service/Method")
	}
	read := q.readHead
	switch r.Method {
	case http.MethodGet:
		read = q.readQuery
	case http.MethodPost:
	default:
		return nil, connectFault(wire.Unknown, http.StatusMethodNotAllowed, "verb "+strconv.Quote(r.Method)+" calls no method; use POST")
	}
	if st := read(r); st != nil {
		return nil, st
	}
	if st := q.readEncodings(r.Header); st != nil {
		return nil, st
	}
	if st := q.readTimeout(r.Header); st != nil {
		return nil, st
	}
	md, st := metadataOf(r)
	if st != nil {
		return nil, st
	}
	q.metadata = md
	return q, nil
}

// readHead reads the kind of call from the header of a POST.
func (q *connectRequest) readHead(r *http.Request) *wire.Status {
	contentType := r.Header.Get("Content-Type")
	codec, ok := strings.CutPrefix(mediaType(contentType), "application/")
	if ok {
		codec, q.stream = strings.CutPrefix(codec, "connect+")
	}
	if !ok || codec != "proto" && codec != "json" {
		return connectFault(wire.Unknown, http.StatusUnsupportedMediaType,
			"content type "+strconv.Quote(contentType)+" is not served; it may be one of "+connectTypes)
	}
	q.json = codec == "json"
	q.contentType = contentTypeOf(codec, q.stream)
	if v := r.Header.Get(fieldVersion); v != "" && v != "1" {
		return connectFault(wire.InvalidArgument, 0, "connect-protocol-version is "+strconv.Quote(v)+", must be \"1\"")
	}
	q.encoding = r.Header.Get("Content-Encoding")
	if q.stream {
		q.encoding = r.Header.Get(fieldStreamEncoding)
	}
	return nil
}

// readQuery reads the kind of call, and the message, from the query of a GET.
func (q *connectRequest) readQuery(r *http.Request) *wire.Status {
	query, st := parseConnectQuery(r.URL.RawQuery)
	if st != nil {
		return st
	}
	q.query, q.json, q.encoding = query, query.codec == "json", query.compression
	q.contentType = contentTypeOf(query.codec, false)
	return nil
}

// readEncodings reads how messages are compressed.
func (q *connectRequest) readEncodings(h http.Header) *wire.Status {
	if q.encoding == "identity" {
		q.encoding = ""
	}
	switch {
	case q.encoding == "":
	case q.json && q.encoding != encodingGzip:
		return connectFault(wire.Unimplemented, 0, "compression "+strconv.Quote(q.encoding)+" of JSON is not supported; it may be one of gzip, identity")
	case !isEncodingName(q.encoding):
		return connectFault(wire.Unimplemented, 0, "compression "+strconv.Quote(q.encoding)+" is not one name; it may be gzip, identity, or what the backend has")
	}
	lines, said := h["Accept-Encoding"]
	if q.stream {
		lines, said = h[fieldStreamAccept]
	}
	q.accept = acceptedEncodings(lines)
	if !said && q.encoding != "" {
		// Who says nothing takes what it sends.
		q.accept = []string{q.encoding}
	}
	return nil
}

// readTimeout reads connect-timeout-ms.
func (q *connectRequest) readTimeout(h http.Header) *wire.Status {
	lines := h[fieldTimeout]
	if len(lines) == 0 {
		return nil
	}
	n, err := strconv.ParseUint(lines[0], 10, 64)
	if err != nil || len(lines) > 1 || len(lines[0]) > maxTimeoutDigits {
		return connectFault(wire.InvalidArgument, 0, "connect-timeout-ms is "+strconv.Quote(strings.Join(lines, ", "))+", must be a number of milliseconds of at most 10 digits")
	}
	// None at all is a deadline that has passed, not one that is missing.
	q.timeout = max(time.Duration(n)*time.Millisecond, 1)
	return nil
}

// connectQuery is the request of a GET.
type connectQuery struct {
	message     []byte
	codec       string // "proto" or "json"
	compression string
}

// parseConnectQuery reads the query of a GET. The caller bounds its length: it is part
// of a header section.
func parseConnectQuery(raw string) (*connectQuery, *wire.Status) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, connectFault(wire.InvalidArgument, 0, "parse query: "+err.Error())
	}
	for _, name := range []string{"connect", "encoding", "message", "base64", "compression"} {
		if len(values[name]) > 1 {
			return nil, connectFault(wire.InvalidArgument, 0, "parameter \""+name+"\" is there more than once")
		}
	}
	for _, name := range []string{"encoding", "message"} {
		if !values.Has(name) {
			return nil, connectFault(wire.InvalidArgument, 0, "parameter \""+name+"\" is missing")
		}
	}
	if v := values.Get("connect"); v != "" && v != "v1" {
		return nil, connectFault(wire.InvalidArgument, 0, "parameter \"connect\" is "+strconv.Quote(v)+", must be \"v1\"")
	}
	q := &connectQuery{codec: values.Get("encoding"), compression: values.Get("compression"), message: []byte(values.Get("message"))}
	if q.codec != "proto" && q.codec != "json" {
		return nil, connectFault(wire.Unknown, http.StatusUnsupportedMediaType, "parameter \"encoding\" is "+strconv.Quote(q.codec)+", must be \"proto\" or \"json\"")
	}
	switch v := values.Get("base64"); v {
	case "", "0":
	case "1":
		if q.message, err = decodeURLBase64(values.Get("message")); err != nil {
			return nil, connectFault(wire.InvalidArgument, 0, "parameter \"message\" is not base64 of the URL alphabet: "+err.Error())
		}
	default:
		return nil, connectFault(wire.InvalidArgument, 0, "parameter \"base64\" is "+strconv.Quote(v)+", must be \"1\" or absent")
	}
	return q, nil
}

// isConnectStream tells a streaming call, of whatever codec.
func isConnectStream(contentType string) bool {
	return wire.KindOf(contentType) == wire.KindConnectStream
}

// contentTypeOf is the content type of messages of a codec.
func contentTypeOf(codec string, stream bool) string {
	if stream {
		return "application/connect+" + codec
	}
	return "application/" + codec
}

// mediaType is a content type in lower case without its parameters; empty when it is
// none, and when its charset is not that of JSON and protobuf.
func mediaType(contentType string) string {
	if strings.IndexByte(contentType, ';') < 0 {
		return strings.ToLower(strings.TrimSpace(contentType))
	}
	t, params, err := mime.ParseMediaType(contentType)
	if charset, ok := params["charset"]; err != nil || ok && !strings.EqualFold(charset, "utf-8") {
		return ""
	}
	return t
}

// acceptedEncodings reads the names of an Accept-Encoding field, those with a weight of
// zero and identity left out. "*" is what the gateway has.
func acceptedEncodings(lines []string) []string {
	var names []string
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			name, weight, _ := strings.Cut(item, ";")
			name = strings.ToLower(strings.TrimSpace(name))
			if name == "*" {
				name = encodingGzip
			}
			if name == "identity" || isNoWeight(weight) || !isEncodingName(name) || slices.Contains(names, name) {
				continue
			}
			if names = append(names, name); len(names) == maxEncodings {
				return names
			}
		}
	}
	return names
}

// isNoWeight tells "q=0" in its spellings (RFC 9110, section 12.4.2).
func isNoWeight(parameter string) bool {
	value, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(parameter)), "q=")
	return ok && strings.Trim(value, "0.") == "" && value != ""
}

// isEncodingName tells one name, as grpc-encoding holds it: letters, digits, and what
// joins them.
func isEncodingName(s string) bool {
	if s == "" || len(s) > maxEncodingName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
