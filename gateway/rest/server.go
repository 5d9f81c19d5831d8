package rest

import (
	"log/slog"
	"net/http"
	"time"

	"sluice/gateway/wire"
)

// Options make a Server.
type Options struct {
	// Log takes what only an operator can mend. nil means none.
	Log *slog.Logger
}

// Server answers plain HTTP requests by RPCs: on the paths of google.api.http
// annotations, and with JSON on the paths of the methods themselves. It is safe for
// use by several goroutines and holds nothing of a request that has ended.
type Server struct {
	log *slog.Logger
	now func() time.Time
}

// NewServer makes a Server.
func NewServer(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{log: o.Log, now: time.Now}
}

// ServeREST answers a request by the method whose annotation has its verb and path.
// It is not handled, and nothing has been written or read, when there is no such
// method or no route leads to one: others may then have the path, and at last
// NotFound.
func (s *Server) ServeREST(w http.ResponseWriter, r *http.Request, way Way) (handled bool) {
	return false
}

// ServeMethod answers "POST /package.Service/Method" with a JSON body. The method
// needs no annotation.
func (s *Server) ServeMethod(w http.ResponseWriter, r *http.Request, way Way) {
	s.Fail(w, r, &wire.Status{Code: wire.Unimplemented, Message: "sluice: JSON is not served yet", Gateway: true})
}

// NotFound answers a request that nobody has a path for: 405 with Allow when the path
// is one of REST and the verb is not, else 404.
func (s *Server) NotFound(w http.ResponseWriter, r *http.Request, way Way) {
	s.Fail(w, r, &wire.Status{Code: wire.NotFound, Message: "sluice: nothing is served on this path", Gateway: true})
}

// Fail answers with an error that came before any RPC: a google.rpc.Status in JSON,
// with the HTTP status that belongs to it. Nothing may have been written yet.
func (s *Server) Fail(w http.ResponseWriter, r *http.Request, st *wire.Status) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(st.HTTPStatus())
}
