package rest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/gateway/schema"
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
//
// What callers see:
//
//   - A success is 200, whatever the verb. Metadata becomes fields of the same name, but
//     for what is of one hop, of the content, or of gRPC itself.
//   - Metadata of the RPC's end becomes trailers for callers who say "TE: trailers". For
//     others it becomes fields, Grpc-Trailer-*, of a unary answer; of a stream it is lost.
//     Of an error all metadata becomes fields of the same name.
//   - An error is a google.rpc.Status in JSON, with the HTTP status of its code. When a
//     stream has begun it is the last line, event or element, {"error": …}; bytes of a
//     google.api.HttpBody are broken off. With "TE: trailers" a stream also ends with
//     Grpc-Status and Grpc-Message.
//   - Server streams are lines of JSON, or what Accept asks for: server-sent events, or a
//     JSON array. Client streams are JSON values one after another. Each message leaves
//     as it comes, both ways.
//   - Deadlines are set by Grpc-Timeout ("500m") or X-Server-Timeout (seconds). A field
//     that claims another verb is not looked at.
//
// On HTTP/1 whoever owns the connection enables full duplex, and sees to what an answered
// request has left unread.
type Server struct {
	log *slog.Logger
}

// NewServer makes a Server.
func NewServer(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{log: o.Log}
}

// ServeREST answers a request by the method whose annotation has its verb and path.
// It is not handled, and nothing has been written or read, when there is no such
// method or no route leads to one: others may then have the path, and at last
// NotFound.
func (s *Server) ServeREST(w http.ResponseWriter, r *http.Request, way Way) (handled bool) {
	found, st := find(r, way)
	if st != nil {
		s.Fail(w, r, st)
		return true
	}
	if found.call == nil {
		return false
	}
	defer found.call.Close()
	method, st := s.describe(r, way, found, found.match.Method.Path)
	if st == nil {
		found.match, st = s.translatable(found, method)
	}
	if st != nil {
		s.Fail(w, r, found.call.Abort(st))
		return true
	}
	serve(w, r, found)
	return true
}

// opened is an RPC for a request, and how the request means it.
type opened struct {
	match   Match
	call    Call // nil when there is none
	timeout time.Duration
}

// find opens the RPC of the first method that has the path and that a route leads to.
func find(r *http.Request, way Way) (opened, *wire.Status) {
	found, st := findIn(r, way, way.Table(r))
	if found.call == nil && st == nil {
		if table := way.Learn(r); table != nil {
			return findIn(r, way, table)
		}
	}
	return found, st
}

func findIn(r *http.Request, way Way, table *Table) (opened, *wire.Status) {
	candidates := candidatesOf(r, table)
	if len(candidates) == 0 {
		return opened{}, nil
	}
	o, st := openingOf(r)
	if st != nil {
		return opened{}, st
	}
	for _, match := range candidates {
		o.Method = match.Method.Path
		call, err := way.Open(r, o)
		if err == nil {
			return opened{match, call, o.Timeout}, nil
		}
		if st := statusFrom(err); !leadsNowhere(st) {
			return opened{}, st
		}
	}
	return opened{}, nil
}

// candidatesOf are the endpoints that a request may mean. HEAD is answered by what
// answers GET, without the content (RFC 9110, section 9.3.2). The verb is the
// request's own: a field that claims another one is not looked at.
func candidatesOf(r *http.Request, table *Table) []Match {
	if table == nil {
		return nil
	}
	path := r.URL.EscapedPath()
	found, _ := table.Match(r.Method, path)
	if len(found) == 0 && r.Method == http.MethodHead {
		found, _ = table.Match(http.MethodGet, path)
	}
	return found
}

// leadsNowhere tells that it was the gateway that has no rule for a method.
func leadsNowhere(st *wire.Status) bool {
	return st.Gateway && st.Code == wire.Unimplemented && st.HTTP == http.StatusNotFound
}

// describe is the method as the backend of the call has it.
func (s *Server) describe(r *http.Request, way Way, o opened, path string) (*schema.Method, *wire.Status) {
	ctx := r.Context()
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	method, err := way.Method(ctx, o.call.Backend(), path)
	if err != nil {
		s.log.Debug("method cannot be translated", "method", path, "backend", o.call.Backend(), "reason", err)
		return nil, undescribed(ctx, err)
	}
	if method == nil {
		return nil, refusal(wire.Unimplemented, "backend %q has no method %q", o.call.Backend(), path)
	}
	return method, nil
}

// undescribed is the status for a method that nobody describes. UNAVAILABLE, which tells
// callers to try again, is for backends that could not be asked.
func undescribed(ctx context.Context, err error) *wire.Status {
	st, told := errors.AsType[*wire.Status](err)
	switch ended := ctx.Err(); {
	case told && st != nil:
		return st
	case ended == context.DeadlineExceeded:
		return refusal(wire.DeadlineExceeded, "the deadline has passed while the schema was asked for: %v", err)
	case ended != nil:
		return refusal(wire.Canceled, "the caller has gone while the schema was asked for")
	case errors.Is(err, schema.ErrNoMethod):
		return refusalHTTP(http.StatusNotFound, wire.Unimplemented, "%v", err)
	case errors.Is(err, schema.ErrNoSchema) && !errors.Is(err, schema.ErrUnanswered):
		return refusal(wire.Unimplemented, "%v", err)
	}
	return refusal(wire.Unavailable, "%v", err)
}

// translatable is the match in the messages of the method that the chosen backend has.
func (s *Server) translatable(o opened, method *schema.Method) (Match, *wire.Status) {
	own, err := o.match.On(method)
	if err == nil {
		return own, nil
	}
	b := o.match.Binding
	s.log.Debug("method cannot be translated", "method", method.Path, "backend", o.call.Backend(), "reason", err)
	return Match{}, refusal(wire.Unimplemented, "path %s %s, which another backend's schema gives to method %q, does not fit the one that backend %q has: %v",
		b.Verb, b.Template, method.Path, o.call.Backend(), err)
}

// ServeMethod answers "POST /package.Service/Method" with a JSON body. The method
// needs no annotation.
func (s *Server) ServeMethod(w http.ResponseWriter, r *http.Request, way Way) {
	path := r.URL.EscapedPath()
	if st := checkMethodRequest(r, path); st != nil {
		if st.HTTP == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		s.Fail(w, r, st)
		return
	}
	o, st := openingOf(r)
	if st != nil {
		s.Fail(w, r, st)
		return
	}
	o.Method = path
	call, err := way.Open(r, o)
	if err != nil {
		s.Fail(w, r, statusFrom(err))
		return
	}
	defer call.Close()
	method, st := s.describe(r, way, opened{call: call, timeout: o.Timeout}, path)
	if isForeign(r) && (method == nil || !Implicit(method).Raw()) {
		failForeign(w, call.Abort(refusalHTTP(http.StatusUnsupportedMediaType, wire.InvalidArgument,
			"the body is of Content-Type %q: want %s", r.Header.Get("Content-Type"), methodTypes)))
		return
	}
	if st != nil {
		s.Fail(w, r, call.Abort(st))
		return
	}
	serve(w, r, opened{Implicit(method), call, o.Timeout})
}

// methodTypes are what the path of a method takes, in all protocols together.
const methodTypes = "application/grpc, application/grpc-web, application/grpc-web-text, " + connectTypes

// isForeign tells a body of a kind that no protocol of RPCs has: an image, a font.
func isForeign(r *http.Request) bool {
	kind, _, ok := strings.Cut(r.Header.Get("Content-Type"), "/")
	return ok && !strings.EqualFold(kind, "application") && !strings.EqualFold(kind, "text") && !strings.EqualFold(kind, "multipart")
}

// failForeign answers somebody who speaks none of our protocols, in none of them.
func failForeign(w http.ResponseWriter, st *wire.Status) {
	h := w.Header()
	h.Set("Accept-Post", methodTypes)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h["X-Content-Type-Options"] = noSniffing
	w.WriteHeader(st.HTTP)
	io.WriteString(w, st.Message+"\n")
}

func checkMethodRequest(r *http.Request, path string) *wire.Status {
	if !wire.ValidPath(path) {
		return refusalHTTP(http.StatusNotFound, wire.Unimplemented, "%q is not the path of a method: want /package.Service/Method", path)
	}
	if r.Method != http.MethodPost {
		return refusalHTTP(http.StatusMethodNotAllowed, wire.Unimplemented, "method %q is called by POST, not by %s", path, r.Method)
	}
	return nil
}

// NotFound answers a request that nobody has a path for: 405 with Allow when the path
// is one of REST, or a method's own, and the verb is not, else 404. A nil way knows no paths.
func (s *Server) NotFound(w http.ResponseWriter, r *http.Request, way Way) {
	path := r.URL.EscapedPath()
	if st := PathFault(path); st != nil {
		s.Fail(w, r, st)
		return
	}
	if allowed := verbsOf(r, way, path); len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		s.Fail(w, r, refusalHTTP(http.StatusMethodNotAllowed, wire.Unimplemented, "%s is not served on %q, but %s", r.Method, path, strings.Join(allowed, ", ")))
		return
	}
	s.Fail(w, r, refusalHTTP(http.StatusNotFound, wire.NotFound, "nothing is served on %q", path))
}

// verbsOf are the verbs that a path has, when it does not have the request's.
func verbsOf(r *http.Request, way Way, path string) []string {
	if way == nil {
		return nil
	}
	table := way.Table(r)
	if table == nil {
		return nil
	}
	found, allowed := table.Match(r.Method, path)
	if len(found) > 0 || r.Method == http.MethodPost && table.methods[path] {
		return nil
	}
	if slices.Contains(allowed, http.MethodGet) && !slices.Contains(allowed, http.MethodHead) {
		allowed = append(allowed, http.MethodHead)
	}
	if table.methods[path] && !slices.Contains(allowed, http.MethodPost) {
		allowed = append(allowed, http.MethodPost)
	}
	return allowed
}
