package rest

import (
	"io"
	"net/http"
	"strings"
	"time"
)

// interrupt ends a read of the request's body that nobody needs any more. Over HTTP/1 the
// connection ends behind the answer: net/http takes a read that was ended for a caller
// that has gone, and tells every later request of the connection so.
func interrupt(w http.ResponseWriter, r *http.Request) error {
	if r.ProtoMajor == 1 {
		closeBehind(w)
	}
	return http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
}

// closeBehind has net/http close the connection behind the answer, also when its header
// has gone, as it does for a reader that finds more than it may.
func closeBehind(w http.ResponseWriter) {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = outer.Unwrap()
	}
	more := http.MaxBytesReader(w, io.NopCloser(strings.NewReader("more")), 0)
	_, _ = more.Read(make([]byte, 1))
}
