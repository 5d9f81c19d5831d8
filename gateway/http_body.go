package gateway

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/gateway/h2"
)

// requestBody is a client's body on its way to one endpoint or, if it is not too large,
// to several, one after the other. A transport may close it, and read from it after the
// handler has returned; neither reaches the client's body then.
type requestBody struct {
	in       io.ReadCloser
	r        *http.Request
	control  *http.ResponseController // nil when reads need no deadline of ours
	patience time.Duration            // how long a client may let us wait for more
	room     *atomic.Int64            // bytes kept of all requests; nil when nothing is kept
	heard    func(n int)              // told of what has come, until end; nil when nobody asks

	reading sync.Mutex // held by the one who reads from in; taken before mu

	mu    sync.Mutex // guards the fields below
	views int        // trials that have been given the body
	read  int        // bytes
	kept  []byte     // all that was read, unless lost
	lost  bool       // more was read than is kept
	err   error      // of the client's side; io.EOF at the end
	ended bool       // the handler has returned
	set   time.Time  // when the deadline was last set
	wait  bool       // somebody reads from in
	came  time.Time  // when the last read from it returned
}

// bodyView is the body as one trial gets it, from the beginning.
type bodyView struct {
	b       *requestBody
	number  int
	at      int         // bytes that it has had
	trailer http.Header // of the request to the backend; filled in at the end
}

var (
	errRequestEnded = errors.New("the request has ended")
	errBodyLost     = errors.New("the beginning of the body is not there any more")
)

// view is the body for the next trial, and for no other any more.
func (b *requestBody) view(trailer http.Header) *bodyView {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.views++
	return &bodyView{b: b, number: b.views, trailer: trailer}
}

func (v *bodyView) Read(p []byte) (int, error) {
	b := v.b
	b.reading.Lock()
	defer b.reading.Unlock()
	if n, known, err := v.known(p); known {
		return n, err
	}
	n, err := b.in.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wait, b.came = false, time.Now()
	b.read += n
	if b.heard != nil && !b.ended {
		b.heard(n)
	}
	b.keep(p[:n], v.number == b.views)
	v.at += n
	if err != nil && b.err == nil && !b.ended {
		b.err = err
		v.finish(err)
	}
	return n, err
}

// known is a read of what has been read before, or of a body that there is no more of.
func (v *bodyView) known(p []byte) (n int, known bool, err error) {
	b := v.b
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ended:
		return 0, true, errRequestEnded
	case v.at < b.read && (b.lost || v.at >= len(b.kept)):
		return 0, true, errBodyLost
	case v.at < b.read:
		n = copy(p, b.kept[v.at:])
		v.at += n
		return n, true, nil
	case b.err != nil:
		v.finish(b.err)
		return 0, true, b.err
	}
	if now := time.Now(); b.control != nil && now.Sub(b.set) > b.patience/10 {
		b.set = now
		b.control.SetReadDeadline(now.Add(b.patience))
	}
	b.wait = true
	return 0, false, nil
}

// finish passes the trailers on at the end of the body.
func (v *bodyView) finish(err error) {
	if err == io.EOF {
		maps.Copy(v.trailer, carriedTrailers(v.b.r.Trailer))
	}
}

// keep remembers what was read for another trial, as long as there is room. What a trial
// has read that is over is for the one that has the body now. The caller holds mu.
func (b *requestBody) keep(p []byte, latest bool) {
	switch n := int64(len(p)); {
	case b.lost || n == 0:
	case b.room == nil:
		b.lost = true
	case latest && (len(b.kept)+len(p) > maxKept || b.room.Load()+n > maxKeptTotal):
		b.room.Add(-int64(len(b.kept)))
		b.kept, b.lost = nil, true
	default:
		b.room.Add(n)
		b.kept = append(b.kept, p...)
	}
}

// whole tells whether another trial can have the body.
func (b *requestBody) whole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.lost && (b.err == nil || b.err == io.EOF)
}

// Close leaves the client's body open: another endpoint may be asked yet.
func (v *bodyView) Close() error { return nil }

// carriedTrailers leaves out what no trailer may be (RFC 9110, section 6.5.1), and what
// a server that adds trailers to the header would believe.
func carriedTrailers(h http.Header) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		switch name {
		case "Content-Length", "Host", "Authorization", "Cookie", "Content-Type", "Content-Encoding":
			continue
		}
		if f := h2.IndexedField(strings.ToLower(name), ""); slices.Contains(hopFields, name) || f.Forwarding() {
			continue
		}
		out[name] = values
	}
	return out
}

// failed tells whether the client did not send what it had promised.
func (b *requestBody) failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil && b.err != io.EOF
}

// owed tells whether there is more to come, and the client was waited for now or since a
// time. Where it was not, the backend does not take what there is.
func (b *requestBody) owed(since time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != io.EOF && (b.wait || b.came.After(since))
}

// end is called when the handler returns.
func (b *requestBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if b.room != nil {
		b.room.Add(-int64(len(b.kept)))
		b.kept, b.lost = nil, true
	}
	if b.control != nil {
		b.control.SetReadDeadline(time.Time{})
	}
}
