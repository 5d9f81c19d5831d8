package web

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"testing"

	"sluice/gateway/wire"
)

// echo is a backend as the gateway shows it to the handler: it sends back each
// message, then trailers with the status that the request asks for. It answers
// nothing before the first message.
func echo(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", r.Header.Get("Content-Type"))
	h.Set("X-Served-By", "cart-v1")
	sent := false
	for {
		msg, err := readMessage(r.Body)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil { // of the caller's making; the handler knows
			h.Set(http.TrailerPrefix+"Grpc-Status", "1")
			return
		}
		w.Write(msg[:wire.PrefixLen])
		w.Write(msg[wire.PrefixLen:])
		http.NewResponseController(w).Flush()
		sent = true
	}
	status := r.Header.Get("X-Want-Status")
	if status == "" {
		status = "0"
	}
	prefix := ""
	if sent {
		prefix = http.TrailerPrefix
	}
	h[prefix+"Grpc-Status"] = []string{status}
	h[prefix+"Grpc-Message"] = []string{"as you wish"}
	h[prefix+"X-End"] = []string{"1", "2"}
}

// readMessage reads a message with its prefix; io.EOF is a clean end.
func readMessage(r io.Reader) ([]byte, error) {
	msg := make([]byte, wire.PrefixLen)
	if _, err := io.ReadFull(r, msg); err != nil {
		return nil, err
	}
	p, _ := wire.ParsePrefix(msg)
	msg = append(msg, make([]byte, p.Length)...)
	_, err := io.ReadFull(r, msg[wire.PrefixLen:])
	return msg, err
}

// answer is a response of gRPC-Web, taken apart.
type answer struct {
	http     int
	header   http.Header
	messages []string
	trailers http.Header // nil when there was no frame of them
	body     string      // decoded, as a whole
}

// status is the one the caller sees, wherever it stands.
func (a answer) status() string {
	if a.trailers == nil {
		return a.header.Get("Grpc-Status")
	}
	return a.trailers.Get("Grpc-Status")
}

func (a answer) message() string {
	if a.trailers == nil {
		return wire.DecodeMessage(a.header.Get("Grpc-Message"))
	}
	return wire.DecodeMessage(a.trailers.Get("Grpc-Message"))
}

// read takes a response apart, and fails the test when it is none of gRPC-Web.
func read(t testing.TB, status int, header http.Header, body string) answer {
	t.Helper()
	a := answer{http: status, header: header, body: body}
	if strings.HasPrefix(header.Get("Content-Type"), typeText) {
		a.body = decodePieces(t, body)
	}
	for rest := []byte(a.body); len(rest) > 0; {
		p, ok := wire.ParsePrefix(rest)
		if !ok || a.trailers != nil || len(rest) < wire.PrefixLen+int(p.Length) {
			t.Fatalf("no frame: %q in %q", rest, a.body)
		}
		payload := rest[wire.PrefixLen : wire.PrefixLen+int(p.Length)]
		rest = rest[wire.PrefixLen+int(p.Length):]
		if p.Flags == wire.FlagWebTrailers {
			a.trailers = readFields(t, payload)
			continue
		}
		a.messages = append(a.messages, string(payload))
	}
	return a
}

// decodePieces decodes what has padding in the middle, as a page does.
func decodePieces(t testing.TB, text string) string {
	t.Helper()
	var out []byte
	for ; len(text) >= 4; text = text[4:] {
		b, err := base64.StdEncoding.DecodeString(text[:4])
		if err != nil {
			t.Fatalf("text %q: %v", text, err)
		}
		out = append(out, b...)
	}
	if text != "" {
		t.Fatalf("text ends with %q", text)
	}
	return string(out)
}

func readFields(t testing.TB, payload []byte) http.Header {
	t.Helper()
	fields := http.Header{}
	for line := range bytes.Lines(payload) {
		name, value, found := strings.Cut(strings.TrimSuffix(string(line), "\r\n"), ": ")
		if !found || strings.ToLower(name) != name {
			t.Fatalf("trailers %q", payload)
		}
		fields[textproto.CanonicalMIMEHeaderKey(name)] = append(fields[textproto.CanonicalMIMEHeaderKey(name)], value)
	}
	return fields
}

// call has the handler answer a request whose body is there as a whole.
func call(t testing.TB, h http.Handler, contentType, body string, fields ...string) answer {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/shop.v1.Cart/Add", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return read(t, w.Code, w.Header(), w.Body.String())
}
