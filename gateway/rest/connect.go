package rest

import (
	"net/http"

	"sluice/gateway/wire"
)

// Connect answers requests of the Connect protocol by RPCs. It holds nothing; the zero
// value is ready, and safe for use by several goroutines.
//
// Messages in the binary format pass as they are, compressed ones too, and need no
// schema. JSON, and GET, need the method's descriptor.
type Connect struct{}

// IsConnect tells whether a request is for ServeConnect. JSON for a method's path is
// Connect only when the caller says so by a field of the protocol: the plain kind
// belongs to Server.ServeMethod.
func IsConnect(r *http.Request) bool { return false }

// ServeConnect answers one request, with errors of its own in the form of the protocol.
func (Connect) ServeConnect(w http.ResponseWriter, r *http.Request, way Way) {
	FailConnect(w, r, &wire.Status{Code: wire.Unimplemented, Message: "sluice: Connect is not served yet", Gateway: true})
}

// FailConnect answers a request with an error that came before any RPC. Nothing may
// have been written yet.
func FailConnect(w http.ResponseWriter, r *http.Request, st *wire.Status) {
	w.WriteHeader(st.HTTPStatus())
}
