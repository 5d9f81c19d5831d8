package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// Field values that many answers share. Nobody changes them in place.
var (
	typeJSON   = []string{"application/json"}
	noSniffing = []string{"nosniff"}
)

// refusal is a status of the gateway's own, for what a request or an answer has wrong.
func refusal(code wire.Code, format string, args ...any) *wire.Status {
	return &wire.Status{Code: code, Message: "sluice: " + fmt.Sprintf(format, args...), Gateway: true}
}

// refusalHTTP is a refusal that HTTP has a better status for than the code's.
func refusalHTTP(status int, code wire.Code, format string, args ...any) *wire.Status {
	st := refusal(code, format, args...)
	st.HTTP = status
	return st
}

// statusFrom is the status that err is, or else stands for: UNAVAILABLE, because the
// errors that are no statuses come of asking backends.
func statusFrom(err error) *wire.Status {
	if st, ok := errors.AsType[*wire.Status](err); ok && st != nil {
		return st
	}
	return refusal(wire.Unavailable, "%v", err)
}

// Fail answers with an error that came before any RPC: a google.rpc.Status in JSON,
// with the HTTP status that belongs to it. Nothing may have been written yet.
func (s *Server) Fail(w http.ResponseWriter, r *http.Request, st *wire.Status) {
	failWith(w, r, st, nil)
}

// failWith is Fail with the schema that knows the types of details; nil knows those of
// every installation.
func failWith(w http.ResponseWriter, r *http.Request, st *wire.Status, types *schema.Schema) {
	details := detailsOf(st)
	body := append(appendFailure(nil, st, details, types), '\n')
	h := w.Header()
	h["Content-Type"] = typeJSON
	h["X-Content-Type-Options"] = noSniffing
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	status := failureHTTP(st)
	if status == http.StatusUnauthorized && h["Www-Authenticate"] == nil {
		h["Www-Authenticate"] = []string{"Bearer"}
	}
	if seconds, ok := retryAfter(details); ok {
		h["Retry-After"] = []string{strconv.FormatInt(seconds, 10)}
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}

// failureHTTP is the HTTP status of an error. A backend that says OK, or a number that
// is no error of HTTP, does not turn it into a success.
func failureHTTP(st *wire.Status) int {
	if status := st.HTTPStatus(); status >= 400 && status <= 599 {
		return status
	}
	return wire.HTTPStatus(wire.Unknown)
}

// appendFailure appends a google.rpc.Status as JSON. The code is one that gRPC defines.
func appendFailure(dst []byte, st *wire.Status, details []detail, types *schema.Schema) []byte {
	code := st.Code.Clamp()
	if code == wire.OK {
		code = wire.Unknown
	}
	dst = append(dst, `{"code":`...)
	dst = strconv.AppendUint(dst, uint64(code), 10)
	dst = append(dst, `,"message":`...)
	dst = appendString(dst, st.Message)
	dst = append(dst, `,"details":[`...)
	for i, d := range details {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = d.append(dst, types)
	}
	return append(dst, "]}"...)
}

// appendString appends a JSON string; what is not UTF-8 becomes U+FFFD.
func appendString(dst []byte, s string) []byte {
	text, _ := json.Marshal(s) // a string always marshals
	return append(dst, text...)
}
