package admin

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"strings"
	"time"

	adminv1 "sluice/admin/v1"
)

// handler answers a request, or returns why it cannot and has written nothing.
type handler func(http.ResponseWriter, *http.Request) error

// failure is an error that the client is told about: the status and the message,
// never the cause.
type failure struct {
	status  int
	message string
	cause   error // for the log; may be nil
}

func (f *failure) Error() string {
	if f.cause == nil {
		return f.message
	}
	return f.message + ": " + f.cause.Error()
}

func (f *failure) Unwrap() error { return f.cause }

// What a request is refused for before any handler sees it.
var (
	errUnknownPath = &failure{status: http.StatusNotFound, message: "not found"}
	errMethod      = &failure{status: http.StatusMethodNotAllowed, message: "only GET and HEAD are allowed"}
)

// router is the table of what the door answers. Paths are matched exactly; nothing
// is cleaned, cut or redirected.
type router struct {
	parts  Parts
	api    *api // nil when there is none
	log    *slog.Logger
	routes map[string]handler
}

func newRouter(cfg Config, parts Parts, api *api, log *slog.Logger) *router {
	rt := &router{parts: parts, api: api, log: log}
	rt.routes = map[string]handler{
		"/healthz": rt.healthz,
		"/readyz":  rt.readyz,
	}
	if parts.Metrics != nil {
		rt.routes["/metrics"] = infallible(parts.Metrics.ServeHTTP)
	}
	if api != nil {
		rt.routes[protoPath] = rt.proto
		rt.routes[setUpPath] = infallible(setUpPage)
	}
	if cfg.Pprof {
		rt.openProfiles()
	}
	return rt
}

// protoPath is where clients of gRPC find what they have to know of the API: there
// is no reflection for strangers.
const protoPath = "/admin/v1/admin.proto"

func (rt *router) proto(w http.ResponseWriter, _ *http.Request) error {
	writeText(w, http.StatusOK, strings.TrimSuffix(adminv1.Proto, "\n"))
	return nil
}

const profiles = "/debug/pprof/"

// profileNames are those of the runtime, which the index page lists.
var profileNames = []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"}

func (rt *router) openProfiles() {
	rt.routes[profiles] = infallible(pprof.Index)
	rt.routes[profiles+"cmdline"] = infallible(pprof.Cmdline)
	rt.routes[profiles+"profile"] = infallible(pprof.Profile)
	rt.routes[profiles+"symbol"] = infallible(pprof.Symbol)
	rt.routes[profiles+"trace"] = infallible(pprof.Trace)
	rt.routes["/debug/freeosmemory"] = freeOSMemory
	for _, name := range profileNames {
		rt.routes[profiles+name] = infallible(pprof.Handler(name).ServeHTTP)
	}
}

// freeOSMemory collects garbage and hands back what is free, so that the resident
// memory that somebody measures is what is in use.
func freeOSMemory(w http.ResponseWriter, _ *http.Request) error {
	debug.FreeOSMemory()
	_, err := io.WriteString(w, "done\n")
	return err
}

// infallible is a handler that has said everything itself.
func infallible(h http.HandlerFunc) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		h(w, r)
		return nil
	}
}

func (rt *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt.secure(w.Header())
	if rt.api != nil && rt.api.serves(r) {
		rt.api.ServeHTTP(w, r)
		return
	}
	limitTime(w, r)
	if err := rt.answer(w, r); err != nil {
		rt.refuse(w, r, err)
	}
}

// secure sets what every answer carries: it is no page, and belongs into none.
func (rt *router) secure(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Server", strings.TrimSuffix("sluice/"+rt.parts.Version, "/"))
}

// limitTime gives the client so long to take the answer. The limit is per request,
// because a profile takes its time.
//
// For a body there is no time at all: nothing here reads one, and net/http, which
// would for the sake of the connection, would wait for it as long as the client
// likes. The connection ends after the answer.
//
// Where limits cannot be set there is no connection to hold up.
func limitTime(w http.ResponseWriter, r *http.Request) {
	limit := answerTimeout
	if strings.HasPrefix(r.URL.Path, profiles) {
		limit = profileTimeout
	}
	now, conn := time.Now(), http.NewResponseController(w)
	_ = conn.SetWriteDeadline(now.Add(limit))
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
		_ = conn.SetReadDeadline(now)
	}
}

func (rt *router) answer(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return errMethod
	}
	h, ok := rt.routes[r.URL.Path]
	if !ok {
		return errUnknownPath
	}
	return h(w, r)
}

// refuse is the one place where an error becomes a status, a message to the client
// and a line in the log. What is no failure is ours to know only.
func (rt *router) refuse(w http.ResponseWriter, r *http.Request, err error) {
	f := &failure{status: http.StatusInternalServerError, message: "internal error"}
	level := slog.LevelError
	if errors.As(err, &f) {
		level = slog.LevelDebug // said to the one who asked
	}
	rt.log.Log(r.Context(), level, "admin request refused",
		"method", r.Method, "path", r.URL.Path, "status", f.status, "error", err)
	writeText(w, f.status, f.message)
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, text+"\n")
}

// healthz is true of a process that can say so.
func (rt *router) healthz(w http.ResponseWriter, _ *http.Request) error {
	writeText(w, http.StatusOK, "ok")
	return nil
}

// readyz says whether new connections are welcome, and if not why.
func (rt *router) readyz(w http.ResponseWriter, _ *http.Request) error {
	if rt.parts.Ready == nil {
		return rt.healthz(w, nil)
	}
	if err := rt.parts.Ready(); err != nil {
		return &failure{status: http.StatusServiceUnavailable, message: err.Error()}
	}
	return rt.healthz(w, nil)
}
