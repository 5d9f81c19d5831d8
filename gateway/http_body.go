package gateway

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/gateway/h2"
)

// requestBody is a client's body on its way. A transport may close it, and read from
// it after the handler has returned; neither reaches the client's body then.
type requestBody struct {
	in       io.ReadCloser
	r        *http.Request
	trailer  http.Header              // of the request to the backend; filled in at the end
	control  *http.ResponseController // nil when reads need no deadline of ours
	patience time.Duration            // how long a client may let us wait for more

	mu    sync.Mutex // guards the fields below
	read  bool       // somebody has
	err   error      // of the client's side; io.EOF at the end
	ended bool       // the handler has returned
	set   time.Time  // when the deadline was last set
}

var errRequestEnded = errors.New("the request has ended")

func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	b.read = true
	if b.ended {
		b.mu.Unlock()
		return 0, errRequestEnded
	}
	if now := time.Now(); b.control != nil && now.Sub(b.set) > b.patience/10 {
		b.set = now
		b.control.SetReadDeadline(now.Add(b.patience))
	}
	b.mu.Unlock()
	n, err := b.in.Read(p)
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.err == nil && !b.ended {
			b.err = err
			if err == io.EOF {
				maps.Copy(b.trailer, carriedTrailers(b.r.Trailer))
			}
		}
	}
	return n, err
}

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

// Close leaves the client's body open: another endpoint may be asked yet.
func (b *requestBody) Close() error { return nil }

// touched tells whether somebody has read.
func (b *requestBody) touched() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read
}

// failed tells whether the client did not send what it had promised.
func (b *requestBody) failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil && b.err != io.EOF
}

// end is called when the handler returns.
func (b *requestBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if b.control != nil {
		b.control.SetReadDeadline(time.Time{})
	}
}
