package hostile

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// wrongRequests are requests of the translated protocols that say what is not, and the
// code that each has to end with, in the caller's protocol.
func wrongRequests() []wrongRequest {
	good := framed(0, note("x"))
	text := func(s string) []byte { return []byte(s) }
	deep := strings.Repeat(`{"inner":`, 100_000)
	list := []wrongRequest{
		// gRPC-Web.
		{name: "prefix cut off", contentType: typeWeb, path: echo, body: good[:3], codes: "3 13"},
		{name: "message cut off", contentType: typeWeb, path: echo, body: good[:6], codes: "3 13"},
		{name: "4 GiB declared", contentType: typeWeb, path: echo, body: []byte{0, 0xff, 0xff, 0xff, 0xff, 1}, codes: "3 8 13"},
		{name: "trailers in a request", contentType: typeWeb, path: echo, body: framed(0x80, text("a: b\r\n")), codes: "3 13"},
		{name: "compressed trailers", contentType: typeWeb, path: echo, body: framed(0x81, nil), codes: "3 13"},
		{name: "unknown flags", contentType: typeWeb, path: echo, body: framed(0x42, nil), codes: "3 13"},
		{name: "JSON called gRPC-Web", contentType: typeWeb, path: echo, body: text(`{"pad":"x"}`), codes: "3 13"},
		{name: "base64 called binary", contentType: typeWeb, path: echo, body: text("AAAAAAEB"), codes: "3 8 13"},
		{name: "garbage for base64", contentType: typeText, path: echo, body: text("!!!!====????"), codes: "3 13"},
		{name: "a quantum cut off", contentType: typeText, path: echo, body: text("AAAAA"), codes: "3 13"},
		{name: "only padding", contentType: typeText, path: echo, body: text("===="), codes: "3 13"},
		{name: "base64 with a line", contentType: typeText, path: echo, body: text("AAAA\nAAA="), codes: "3 13"},
		{name: "binary called text", contentType: typeText, path: echo, body: good, codes: "3 13"},
		// Connect.
		{name: "prefix cut off", contentType: typeStream, path: chat, body: good[:3], codes: "3"},
		{name: "message cut off", contentType: typeStream, path: chat, body: good[:6], codes: "3"},
		{name: "4 GiB declared", contentType: typeStream, path: chat, body: []byte{0, 0xff, 0xff, 0xff, 0xff, 1}, codes: "8"},
		{name: "end of stream in a request", contentType: typeStream, path: chat, body: framed(2, text("{}")), codes: "3"},
		{name: "unknown flags", contentType: typeStream, path: chat, body: framed(0x42, nil), codes: "3"},
		{name: "compressed with what nobody named", contentType: typeStream, path: chat, body: framed(1, note("x")), codes: "13 3"},
		{name: "no gzip", contentType: "application/connect+json", path: chat, body: framed(1, text("{}")), header: []string{"Connect-Content-Encoding", "gzip"}, codes: "3"},
		{name: "binary called JSON", contentType: "application/connect+json", path: chat, body: framed(0, note("x")), codes: "3"},
		{name: "no gzip", contentType: typeJSON, path: echo, body: text(`{}`), header: []string{"Content-Encoding", "gzip", "Connect-Protocol-Version", "1"}, codes: "3"},
		{name: "brotli", contentType: typeJSON, path: echo, body: text(`{}`), header: []string{"Content-Encoding", "br", "Connect-Protocol-Version", "1"}, codes: "12"},
		{name: "version 2", contentType: typeConnect, path: echo, body: note("x"), header: []string{"Connect-Protocol-Version", "2"}, codes: "3"},
		{name: "no timeout", contentType: typeConnect, path: echo, body: note("x"), header: []string{"Connect-Timeout-Ms", "-1"}, codes: "3"},
		{name: "more than the limit", contentType: typeConnect, path: echo, body: note(strings.Repeat("x", 5<<20)), codes: "8"},
		{name: "more than the limit, no length", contentType: typeConnect, path: echo, body: note(strings.Repeat("x", 5<<20)), chunked: true, codes: "8"},
		{name: "GET without a message", verb: "GET", path: echo + "?connect=v1&encoding=json", codes: "3"},
		{name: "GET of no base64", verb: "GET", path: echo + "?connect=v1&encoding=proto&base64=1&message=%25%25", codes: "3"},
		{name: "GET twice", verb: "GET", path: echo + "?connect=v1&encoding=json&message={}&message={}", codes: "3"},
		// REST.
		{name: "more than the limit", contentType: typeJSON, path: "/v1/echo", body: text(`{"pad":"` + strings.Repeat("x", 5<<20) + `"}`), codes: "8"},
		{name: "more than the limit, no length", contentType: typeJSON, path: "/v1/echo", body: text(`{"pad":"` + strings.Repeat("x", 5<<20) + `"}`), chunked: true, codes: "8"},
		{name: "protobuf called JSON", contentType: typeJSON, path: "/v1/echo", body: note("x"), codes: "3"},
		{name: "gRPC-Web for a path of REST", contentType: typeWeb, path: "/v1/echo", body: good, codes: "12"},
		{name: "Connect for a path of REST", contentType: typeStream, path: "/v1/echo", body: good, codes: "12"},
		{name: "a form", contentType: "application/x-www-form-urlencoded", path: "/v1/echo", body: text("pad=x"), codes: "3"},
		{name: "another charset", contentType: "application/json; charset=utf-16", path: "/v1/echo", body: text("{}"), codes: "3"},
		{name: "no type", path: "/v1/echo", body: text("{}"), codes: "3"},
		{name: "1,001 parameters", verb: "GET", path: "/v1/notes/a?n=1" + strings.Repeat("&list=1", 1000), codes: "3"},
		{name: "a parameter that is not there", verb: "GET", path: "/v1/notes/a?m=1", codes: "3"},
		{name: "parameters nested without end", verb: "GET", path: "/v1/notes/a?" + strings.Repeat("inner.", 1000) + "n=1", codes: "3"},
		{name: "a broken escape", verb: "GET", path: "/v1/notes/a?pad=%zz", codes: "3"},
		{name: "a number out of range", verb: "GET", path: "/v1/notes/a?n=2147483648", codes: "3"},
		{name: "two deadlines that are none", verb: "GET", path: "/v1/notes/a", header: []string{"Grpc-Timeout", "soon"}, codes: "3"},
	}
	for _, j := range []struct{ name, doc string }{
		{"100,000 levels", deep},
		{"100,000 arrays", `{"any":` + strings.Repeat("[", 100_000)},
		{"cut off", `{"pad":"`},
		{"a key twice", `{"n":1,"n":2}`},
		{"a key twice, otherwise written", `{"pad":"a","p\u0061d":"b"}`},
		{"not UTF-8", "{\"pad\":\"\xff\xfe\"}"},
		{"a lone surrogate", `{"pad":"\ud800"}`},
		{"a number too large", `{"n":2147483648}`},
		{"a number without end", `{"n":1e999999999}`},
		{"a broken number", `{"n":1.5}`},
		{"a million digits", `{"n":` + strings.Repeat("9", 1_000_000) + `}`},
		{"an unknown field", `{"` + strings.Repeat("m", 100_000) + `":1}`},
		{"more behind it", `{} {}`},
		{"NUL", "{}\x00"},
		{"a BOM", "\ufeff{}"},
	} {
		list = append(list,
			wrongRequest{name: "JSON: " + j.name, contentType: typeJSON, path: "/v1/echo", body: text(j.doc), codes: "3"},
			wrongRequest{name: "JSON: " + j.name, contentType: typeJSON, path: echo, body: text(j.doc), header: []string{"Connect-Protocol-Version", "1"}, codes: "3"},
			wrongRequest{name: "JSON: " + j.name, contentType: "application/connect+json", path: chat, body: framed(0, text(j.doc)), codes: "3"},
		)
	}
	return list
}

type wrongRequest struct {
	name, verb, contentType, path string
	header                        []string
	body                          []byte
	chunked                       bool   // sent without its length
	codes                         string // any of these
}

func (w wrongRequest) ask() ask {
	a := ask{verb: w.verb, path: w.path, header: w.header}
	if w.contentType != "" {
		a.header = append([]string{"Content-Type", w.contentType}, a.header...)
	}
	if w.body != nil {
		a.body = strings.NewReader(string(w.body))
		if w.chunked {
			a.body = struct{ *strings.Reader }{strings.NewReader(string(w.body))}
		}
	}
	return a
}

// Each wrong request has an error in its own protocol, over both versions of HTTP, and
// the bystander notices nothing.
func TestTranslatedWrongRequests(t *testing.T) {
	r := newTranslating(t, nodeConfig{}, "")
	tr := r.begin("wrong requests")
	n := 0
	for version := 1; version <= 2; version++ {
		c := caller(t, version)
		for _, w := range wrongRequests() {
			n++
			what := fmt.Sprintf("HTTP/%d %s: %s", version, strings.TrimPrefix(w.contentType, "application/"), w.name)
			a, err := do(c, r.request(t, w.ask()))
			switch {
			case err != nil:
				t.Errorf("%s: %v", what, err)
			case !strings.Contains(" "+w.codes+" ", fmt.Sprintf(" %d ", a.code)):
				t.Errorf("%s: %v, want code %s", what, a, w.codes)
			case len(a.text) > 4096:
				t.Errorf("%s: an error of %d bytes", what, len(a.text))
			}
		}
	}
	t.Logf("%d wrong requests", n)
	r.clean()
	tr.judge(cost{memory: 96 << 20, cpu: 3 * time.Second})
}

// A path has one meaning: what is hidden in it by escapes is refused or reaches the
// backend as it was written, and never leads elsewhere.
func TestTranslatedPathGames(t *testing.T) {
	r := newTranslating(t, nodeConfig{}, "")
	tr := r.begin("path games")
	callers := []*http.Client{caller(t, 1), caller(t, 2)}
	for _, test := range []struct {
		path   string
		pad    string // what the backend gets; "" when the path must be refused
		status string
	}{
		{"/v1/notes/a%2Fb", "a/b", "200"},
		{"/v1/all/a%2Fb", "a%2Fb", "200"},
		{"/v1/all/a/b", "a/b", "200"},
		{"/v1/notes/a;b=c", "a;b=c", "200"},
		{"/v1/notes/a%3Bb", "a;b", "200"},
		{"/v1/notes/%00", "", "400"},
		{"/v1/all/a/%00", "", "400"},
		{"/v1/all/../echo", "", "400 404"},
		{"/v1/all/a/../b", "", "400 404"},
		{"/v1/all/a/%2e%2e/b", "", "400 404"},
		{"/v1/all/a/.%2E/b", "", "400 404"},
		{"/v1/notes/..", "", "400 404"},
		{"/v1//notes/a", "", "400 404"},
		{"/v1/notes//a", "", "400 404"},
		{"/v1/notes/a/", "", "400 404"},
		{"/v1/notes/", "", "400 404"},
		{"/v1/%6eotes/a", "a", "200"},
		{"/V1/notes/a", "", "400 404"},
		{"/v1/notes/%ff", "", "400"},
		{"/v1/notes%2Fa", "", "400 404"},
		{"/hostile.Honest%2FEcho", "", "400 404 405"},
		{"/v1/notes/%252e%252e", "%2e%2e", "200"},
	} {
		for version := 1; version <= 2; version++ {
			req := r.request(t, ask{verb: "GET", path: "/"})
			req.URL.Opaque = test.path // as it is
			resp, err := callers[version-1].Do(req)
			if err != nil {
				t.Errorf("HTTP/%d %s: %v", version, test.path, err)
				continue
			}
			body := make([]byte, 1000)
			m, _ := resp.Body.Read(body)
			resp.Body.Close()
			status := fmt.Sprint(resp.StatusCode)
			has := strings.Contains(string(body[:m]), fmt.Sprintf(`"pad":%q`, test.pad))
			if !strings.Contains(test.status, status) || resp.StatusCode == http.StatusOK && !has {
				t.Errorf("HTTP/%d %s: %s %.200s, want %s and %q", version, test.path, status, body[:m], test.status, test.pad)
			}
		}
	}
	r.clean()
	callers[0].CloseIdleConnections()
	callers[1].CloseIdleConnections()
	tr.judge(cost{cpu: time.Second})
}

// Preflights that no browser makes.
func TestTranslatedForgedPreflights(t *testing.T) {
	r := newTranslating(t, nodeConfig{Origins: []string{"https://shop.example.com"}}, "")
	tr := r.begin("forged preflights")
	many := strings.Repeat("X-A: b\r\n", 10_000)
	long := "Access-Control-Request-Headers: " + strings.Repeat("x", 1<<20) + "\r\n"
	names := "Access-Control-Request-Headers: " + strings.Repeat("x,", 5000) + "\r\n"
	for _, test := range []struct{ name, fields, want string }{
		{"10,000 fields", many, "431"},
		{"a list of 1 MiB", long, "431"},
		{"5,000 names", names, "400 431"},
		{"no name", "Access-Control-Request-Headers: a b\r\n", "400 204"},
		{"two origins", "Origin: https://evil.example\r\n", "403"},
		{"an honest one", "Access-Control-Request-Headers: x-user\r\n", "204"},
	} {
		for _, path := range []string{echo, "/v1/notes/a"} {
			nc := r.raw(t, "OPTIONS "+path+" HTTP/1.1\r\nHost: "+good+"\r\nOrigin: https://shop.example.com\r\nAccess-Control-Request-Method: GET\r\n")
			nc.Write([]byte(test.fields + "\r\n"))
			line := make([]byte, 12)
			n, _ := nc.Read(line)
			got := strings.TrimPrefix(string(line[:n]), "HTTP/1.1 ")
			if got == "" || !strings.Contains(test.want, got) {
				t.Errorf("%s for %s: %q, want %s", test.name, path, got, test.want)
			}
			nc.Close()
		}
	}
	r.clean()
	tr.judge(cost{memory: 32 << 20, cpu: time.Second})
}
