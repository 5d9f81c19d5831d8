package admin

import (
	"errors"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

// What a request of the API may take before it is understood.
const (
	// maxBody is one message in its longest writing: JSON may need two bytes for
	// each of a text.
	maxBody = maxMessageBytes + 1<<10
	// maxRestore is a whole store, as large as one may be, in messages.
	maxRestore = 1<<30 + 64<<20
	// smallBody is what is read at once. A body that goes on waits for one of
	// maxLarge places. A text may take a hundred times its length in memory while
	// it is parsed, so that of larger ones only one is.
	smallBody = 64 << 10
	maxLarge  = 2
	// bodyTime is how long the body may take, of Restore each piece of it.
	bodyTime = time.Minute
)

// ServeHTTP bounds what a request takes: bytes, memory, and time to send it and to
// take the answer.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	limit := int64(maxBody)
	long := r.URL.Path == adminv1.NodeServiceRestoreProcedure
	if long {
		limit = maxRestore
	}
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close")
		_ = connect.NewErrorWriter().Write(w, r, refuse(connect.CodeResourceExhausted,
			"a request of %d bytes, limit %d", r.ContentLength, limit))
		return
	}
	if isCompressed(r) && IdentityFrom(r.Context()).Role == adminv1.Role_ROLE_UNSPECIFIED {
		w.Header().Set("Connection", "close")
		_ = connect.NewErrorWriter().Write(w, r, refuse(connect.CodeUnimplemented,
			"a compressed request is taken of nobody who has not signed in"))
		return
	}
	conn := http.NewResponseController(w)
	body := &meteredBody{ReadCloser: http.MaxBytesReader(w, r.Body, limit), api: a, request: r, conn: conn, long: long}
	defer body.leave()
	body.begin()
	r.Body = body
	a.mux.ServeHTTP(&pacedWriter{ResponseWriter: w, conn: conn}, r)
}

// meteredBody lets few large bodies be read at once, and gives each its time.
type meteredBody struct {
	io.ReadCloser
	api     *api
	request *http.Request
	conn    *http.ResponseController
	long    bool // each piece has its time; else the whole has
	read    int
	placed  bool // it has one of the places
	ended   bool // there is no more to read
}

var errCrowded = errors.New("too many large requests at once; try again")

// begin starts the clock.
func (b *meteredBody) begin() {
	_ = b.conn.SetReadDeadline(time.Now().Add(bodyTime))
}

func (b *meteredBody) Read(p []byte) (int, error) {
	// A compressed body is large whatever its length, but until its first byte comes
	// it takes nobody's place.
	compressed := isCompressed(b.request)
	if !b.placed && !b.long && (b.read >= smallBody || compressed && b.read > 0) {
		if err := b.enter(); err != nil {
			return 0, err
		}
	}
	if b.long {
		_ = b.conn.SetReadDeadline(time.Now().Add(bodyTime))
	}
	switch {
	case b.placed || b.long:
	case compressed:
		p = p[:min(len(p), 1)]
	default:
		p = p[:min(len(p), smallBody)]
	}
	n, err := b.ReadCloser.Read(p)
	b.read += n
	if err == io.EOF {
		// A deadline that passed later would be taken for a client that has gone.
		b.ended = true
		_ = b.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}

// isCompressed says whether the message of a request may be longer than it looks. That
// of a GET is in its query.
func isCompressed(r *http.Request) bool {
	for _, name := range []string{"Content-Encoding", "Connect-Content-Encoding", "Grpc-Encoding"} {
		if isEncoding(r.Header.Get(name)) {
			return true
		}
	}
	return r.Method == http.MethodGet && isEncoding(r.URL.Query().Get("compression"))
}

func isEncoding(name string) bool { return name != "" && name != "identity" }

// enter waits for a place, as long as a body may take.
func (b *meteredBody) enter() error {
	timer := time.NewTimer(bodyTime)
	defer timer.Stop()
	select {
	case b.api.large <- struct{}{}:
		b.placed = true
		return nil
	case <-timer.C:
		return connect.NewError(connect.CodeUnavailable, errCrowded)
	case <-b.request.Context().Done():
		return b.request.Context().Err()
	}
}

// leave gives the place to another, when the answer has been given: until then the
// text is in memory. For the rest of a body that nobody wanted net/http would wait
// as long as the client likes.
func (b *meteredBody) leave() {
	if b.placed {
		<-b.api.large
	}
	if !b.ended && b.request.ContentLength != 0 {
		_ = b.conn.SetReadDeadline(time.Now())
	}
}

// pacedWriter gives each piece of an answer its time. A stream may last for ever,
// but a client that does not take what is sent is cut off.
type pacedWriter struct {
	http.ResponseWriter
	conn *http.ResponseController
}

func (w *pacedWriter) Write(p []byte) (int, error) {
	w.pace()
	return w.ResponseWriter.Write(p)
}

// Flush sends what has been written. Why it could not, the next Write tells.
func (w *pacedWriter) Flush() {
	w.pace()
	_ = w.conn.Flush()
}

func (w *pacedWriter) pace() { _ = w.conn.SetWriteDeadline(time.Now().Add(answerTimeout)) }

// Unwrap is for http.ResponseController.
func (w *pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
