package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/gateway/h2"
	"sluice/gateway/listen"
)

// http1 is the server of HTTP/1.
type http1 struct {
	*http.Server
	end    context.CancelCauseFunc // ends every request that is open, which is told why
	visits *visits
}

// newHTTP1 serves what is not HTTP/2 by the same handler. HTTP/2 in net/http stays
// off: the engine is the only one that speaks it. What net/http has to say is about
// what clients do, which is nobody's concern by default.
func (g *Gateway) newHTTP1() *http1 {
	ctx, end := context.WithCancelCause(context.Background())
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http1{end: end, visits: &g.visits, Server: &http.Server{
		Handler:     http.HandlerFunc(g.serveHTTP1),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			info, _ := listen.InfoOf(nc)
			se := g.newSession(info.Remote, info.TLS)
			if age := g.engine.Limits().Lifespan(); age > 0 {
				se.aged = info.AcceptedAt.Add(age)
			}
			return context.WithValue(ctx, sessionKey{}, se)
		},
		Protocols:         protocols,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       g.engine.Limits().Idle,
		MaxHeaderBytes:    g.engine.Limits().HeaderBytes,
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}}
}

// drain waits for the requests that are open until ctx is done. Those that are left
// have a moment to tell their callers.
func (s *http1) drain(ctx context.Context) {
	s.Shutdown(ctx)
	if s.visits.wait(ctx) {
		return
	}
	s.end(h2.ErrShutDown)
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	s.Shutdown(ctx)
	s.visits.wait(ctx)
}

// serveHTTP1 has the handler answer a request that looks like one of HTTP/2. The
// client's address is the connection's, and there already; net/http looks for TLS
// only where it was itself that opened it.
func (g *Gateway) serveHTTP1(w http.ResponseWriter, r *http.Request) {
	// The preface of HTTP/2 (RFC 9113, section 3.4), on TLS that has not agreed on it.
	if r.Method == "PRI" {
		w.Header().Set("Connection", "close")
		http.Error(w, "sluice: HTTP/2 over TLS needs h2 to be agreed on by ALPN", http.StatusBadRequest)
		return
	}
	se := g.sessionOf(r)
	r.TLS = se.peer.TLS
	if !se.aged.IsZero() {
		r = g.ageHTTP1(w, r, se.aged)
	}
	g.handled.Add(1)
	g.visits.enter()
	defer g.visits.leave()
	defer g.endPanic(r)
	// Answers do not wait for a body that nobody reads.
	control := http.NewResponseController(w)
	control.EnableFullDuplex()
	if r.ContentLength == 0 {
		g.handler.ServeHTTP(w, r)
		return
	}
	body := &http1Body{ReadCloser: r.Body}
	watched := r.WithContext(r.Context()) // net/http looks at its own request's body
	watched.Body = body
	g.handler.ServeHTTP(w, watched)
	body.leave(w, control)
}

// ageHTTP1 has the answer on a connection that is old be the last one, and ends a request
// that goes on for longer than the grace after that.
func (g *Gateway) ageHTTP1(w http.ResponseWriter, r *http.Request, aged time.Time) *http.Request {
	if !time.Now().Before(aged) {
		w.Header().Set("Connection", "close")
	}
	grace := g.engine.Limits().AgeGrace
	if grace <= 0 {
		return r
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(max(time.Until(aged), 0)+grace, func() { cancel(h2.ErrAged) })
	context.AfterFunc(r.Context(), func() { timer.Stop() }) // net/http ends it with the request
	return r.WithContext(ctx)
}

const (
	// soonBody is how long an answered request may take to end if its connection is to
	// live on: most have ended, and it only has to be read.
	soonBody = 50 * time.Millisecond
	// lateBody is how long the rest may take that is read to be thrown away.
	lateBody = time.Second
)

// http1Body is the body of a request with what net/http does not tell: how reading ended.
type http1Body struct {
	io.ReadCloser
	ended  atomic.Bool // at its end
	failed atomic.Bool // before that
}

func (b *http1Body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.ended.Store(true)
	} else if err != nil {
		b.failed.Store(true)
	}
	return n, err
}

// leave ends what an answered request has left. In full duplex net/http goes on to the
// next request wherever the body's reader stopped, be it in the middle of the body, which
// is then taken for a request; and it panics when it meets the end of the body itself. So
// the end is found here, or the connection does not live on. Nor does it when a read has
// failed: net/http then tells all its later requests that the caller has gone.
func (b *http1Body) leave(w http.ResponseWriter, control *http.ResponseController) {
	if b.ended.Load() {
		return
	}
	if !b.failed.Load() {
		control.SetReadDeadline(time.Now().Add(soonBody))
		io.Copy(io.Discard, b)
		if b.ended.Load() {
			control.SetReadDeadline(time.Time{})
			return
		}
	}
	// The header has gone, so that Connection: close comes too late. A reader that finds
	// more than it may has net/http close behind the answer.
	http.MaxBytesReader(w, io.NopCloser(strings.NewReader("more")), 0).Read(make([]byte, 1))
	control.SetReadDeadline(time.Now().Add(lateBody)) // for callers who write before they read
}

// endPanic logs a panic of the handler, and has net/http end the connection.
func (g *Gateway) endPanic(r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v != http.ErrAbortHandler {
		g.log.Error("handler panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}

// visits are the HTTP/1 requests that are being answered, of which net/http forgets
// those that have become something else.
type visits struct {
	mu   sync.Mutex // guards the fields below
	open int
	none chan struct{} // closed when none is open; nil unless somebody waits
}

func (v *visits) enter() {
	v.mu.Lock()
	v.open++
	v.mu.Unlock()
}

func (v *visits) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open--; v.open == 0 && v.none != nil {
		close(v.none)
		v.none = nil
	}
}

// wait reports whether there are none, for which it waits until ctx is done.
func (v *visits) wait(ctx context.Context) bool {
	v.mu.Lock()
	if v.open == 0 {
		v.mu.Unlock()
		return true
	}
	if v.none == nil {
		v.none = make(chan struct{})
	}
	none := v.none
	v.mu.Unlock()
	select {
	case <-none:
		return true
	case <-ctx.Done():
		return false
	}
}
