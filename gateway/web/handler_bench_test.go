package web

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// sink is a response that goes nowhere.
type sink struct{ h http.Header }

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) Flush()                      {}

// unary is a request as a browser sends it, over and over.
func unary(contentType, body string) func() *http.Request {
	header := http.Header{
		"Accept": {"application/grpc-web-text"}, "Accept-Encoding": {"gzip, deflate, br, zstd"}, "Accept-Language": {"en"},
		"Content-Type": {contentType}, "Origin": {"https://shop.example.com"}, "Referer": {"https://shop.example.com/"},
		"User-Agent": {"Mozilla/5.0"}, "X-Grpc-Web": {"1"}, "X-User-Agent": {"grpc-web-javascript/0.1"},
	}
	if !strings.Contains(contentType, "text") {
		header["Accept"] = []string{"*/*"}
	}
	var reader bytes.Reader
	r, _ := http.NewRequest(http.MethodPost, "http://a/shop.v1.Cart/Add", nil)
	r.ProtoMajor, r.ProtoMinor = 1, 1
	return func() *http.Request {
		reader.Reset([]byte(body))
		r.Header, r.Body, r.ContentLength = header, io.NopCloser(&reader), int64(len(body))
		return r
	}
}

// BenchmarkHandlerUnary is what the translation costs beside the RPC: a request of 105
// bytes and its echo, with a policy for other origins.
func BenchmarkHandlerUnary(b *testing.B) {
	plain := message(0, strings.Repeat("x", 100))
	text := string(AppendText(nil, []byte(plain)))
	policy := CompileCORS(CORSPolicy{AllowOrigins: []string{"https://shop.example.com"}})
	upstream := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var room [128]byte
		n, _ := io.ReadFull(r.Body, room[:])
		h := w.Header()
		h["Content-Type"] = []string{"application/grpc+proto"}
		w.Write(room[:n])
		h["Trailer:Grpc-Status"] = []string{"0"}
		h["Trailer:Grpc-Message"] = []string{""}
	})
	for _, bc := range []struct {
		name, contentType, body string
		handler                 http.Handler
	}{
		{"upstream alone", "application/grpc-web+proto", plain, upstream},
		{"binary", "application/grpc-web+proto", plain, NewHandler(upstream, Options{CORS: func(*http.Request) *CORS { return policy }})},
		{"text", "application/grpc-web-text", text, NewHandler(upstream, Options{CORS: func(*http.Request) *CORS { return policy }})},
	} {
		b.Run(bc.name, func(b *testing.B) {
			next := unary(bc.contentType, bc.body)
			b.ReportAllocs()
			for b.Loop() {
				bc.handler.ServeHTTP(&sink{h: make(http.Header, 8)}, next())
			}
		})
	}
}
