package rest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	// Their types resolve what backends commonly say in the details of an error.
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// connectCodes are the protocol's names of the codes.
var connectCodes = [wire.NumCodes]string{
	wire.OK:                 "unknown", // no error has it
	wire.Canceled:           "canceled",
	wire.Unknown:            "unknown",
	wire.InvalidArgument:    "invalid_argument",
	wire.DeadlineExceeded:   "deadline_exceeded",
	wire.NotFound:           "not_found",
	wire.AlreadyExists:      "already_exists",
	wire.PermissionDenied:   "permission_denied",
	wire.ResourceExhausted:  "resource_exhausted",
	wire.FailedPrecondition: "failed_precondition",
	wire.Aborted:            "aborted",
	wire.OutOfRange:         "out_of_range",
	wire.Unimplemented:      "unimplemented",
	wire.Internal:           "internal",
	wire.Unavailable:        "unavailable",
	wire.DataLoss:           "data_loss",
	wire.Unauthenticated:    "unauthenticated",
}

// connectHTTP is the HTTP status of a unary error: the code's own, by the protocol's
// table, save where the protocol itself asks for another.
func connectHTTP(st *wire.Status) int {
	switch {
	case isOutsideProtocol(st) || st.HTTP == http.StatusNotFound:
		return st.HTTP
	case st.Code == wire.OK:
		return http.StatusInternalServerError
	}
	return wire.HTTPStatus(st.Code)
}

// isOutsideProtocol tells the errors that are said by an HTTP status, in streams too: to
// answer in the form of the protocol would mean to speak it.
func isOutsideProtocol(st *wire.Status) bool {
	return st.HTTP == http.StatusMethodNotAllowed || st.HTTP == http.StatusUnsupportedMediaType
}

// connectFault is an error that the gateway found. status is 0 where the code says all.
func connectFault(code wire.Code, status int, text string) *wire.Status {
	return &wire.Status{Code: code, Message: "sluice: " + text, HTTP: status, Gateway: true}
}

// tooLarge is the error of a message beyond the limit.
func tooLarge(what string, limit int) *wire.Status {
	return connectFault(wire.ResourceExhausted, 0,
		what+" has more than "+strconv.Itoa(limit)+" bytes, the limit for translated messages (translation.maxMessageBytes of an RPCPolicy)")
}

// connectStatus is the status that an error of this package or of a call is.
func connectStatus(err error) *wire.Status {
	var st *wire.Status
	if errors.As(err, &st) {
		return st
	}
	return connectFault(wire.Internal, 0, err.Error())
}

// FailConnect answers a request with an error that came before any RPC. Nothing may
// have been written yet.
func FailConnect(w http.ResponseWriter, r *http.Request, st *wire.Status) {
	if isConnectStream(r.Header.Get("Content-Type")) && !isOutsideProtocol(st) {
		w.Header().Set("Content-Type", mediaType(r.Header.Get("Content-Type")))
		w.WriteHeader(http.StatusOK)
		w.Write(appendEndStream(nil, st, nil, nil))
		return
	}
	writeConnectError(w, st, nil)
}

// writeConnectError answers a unary request with an error, after the metadata.
func writeConnectError(w http.ResponseWriter, st *wire.Status, m *schema.Method) {
	body := connectJSON(errorOf(st, m))
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	switch st.HTTP {
	case http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodPost)
	case http.StatusUnsupportedMediaType:
		h.Set("Accept-Post", connectTypes)
	}
	w.WriteHeader(connectHTTP(st))
	w.Write(body)
}

// connectError is an error as the protocol writes it.
type connectError struct {
	Code    string          `json:"code"`
	Message string          `json:"message,omitempty"`
	Details []connectDetail `json:"details,omitempty"`
}

type connectDetail struct {
	Type  string          `json:"type"`
	Value string          `json:"value"` // base64 without padding
	Debug json.RawMessage `json:"debug,omitempty"`
}

// errorOf is st with its details, each with its JSON where its type is known. m is nil
// when the method is not known.
func errorOf(st *wire.Status, m *schema.Method) *connectError {
	e := &connectError{Code: connectCodes[st.Code.Clamp()], Message: st.Message}
	var full statuspb.Status
	if len(st.Details) == 0 || proto.Unmarshal(st.Details, &full) != nil {
		return e // what cannot be read is no detail
	}
	for _, d := range full.Details {
		url := d.GetTypeUrl()
		e.Details = append(e.Details, connectDetail{
			Type:  url[strings.LastIndexByte(url, '/')+1:],
			Value: base64.RawStdEncoding.EncodeToString(d.GetValue()),
			Debug: debugOf(d, m),
		})
	}
	return e
}

// debugOf is a detail for people to read; nil when its type is not known. A dynamic
// message is not made of it: proto.Unmarshal panics on some that a backend could send.
func debugOf(d *anypb.Any, m *schema.Method) json.RawMessage {
	var types *schema.Schema
	if m != nil {
		types = m.Schema
	}
	t, err := resolverOf(types).FindMessageByURL(d.GetTypeUrl())
	if err != nil {
		return nil
	}
	text, err := ToJSON(nil, t, d.GetValue(), types)
	if err != nil {
		return nil
	}
	return text
}

// connectEnd is the last thing of a stream.
type connectEnd struct {
	Error    *connectError       `json:"error,omitempty"`
	Metadata map[string][]string `json:"metadata,omitempty"`
}

// appendEndStream appends the envelope that ends a stream. st is nil for success.
func appendEndStream(b []byte, st *wire.Status, trailer http.Header, m *schema.Method) []byte {
	var end connectEnd
	if st != nil {
		end.Error = errorOf(st, m)
	}
	for key, values := range trailer {
		if name := strings.ToLower(key); isMetadata(name) {
			if end.Metadata == nil {
				end.Metadata = make(map[string][]string)
			}
			end.Metadata[name] = append(end.Metadata[name], values...)
		}
	}
	text := connectJSON(end)
	b = wire.AppendPrefix(b, wire.Prefix{Flags: flagEndStream, Length: uint32(len(text))})
	return append(b, text...)
}

// connectJSON writes what this file declares, which always can be.
func connectJSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
