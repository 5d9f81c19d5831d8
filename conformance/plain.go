package main

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
)

// plainBody is long enough for the suites to meter: h2spec skips its window
// cases when an answer is shorter than five bytes.
const plainBody = "conformance\n"

// startPlain serves HTTP/2 from net/http on a free port, in clear when
// secure is nil, and answers every request with 200 and a body.
func startPlain(secure *tls.Config) (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: http.HandlerFunc(answerPlain), Protocols: &protocols, TLSConfig: secure}
	if secure == nil {
		go srv.Serve(l)
	} else {
		go srv.ServeTLS(l, "", "")
	}
	return l.Addr().String(), func() { srv.Close() }, nil
}

// answerPlain reads the whole request before it answers, so that a request
// that goes wrong later is never answered well.
func answerPlain(w http.ResponseWriter, req *http.Request) {
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	io.WriteString(w, plainBody)
}
