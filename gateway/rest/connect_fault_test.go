package rest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sluice/gateway/wire"
)

// rawRequest is one request as the protocol does not have it, or barely.
type rawRequest struct {
	verb, path, contentType string
	fields                  string // "name: value" lines
	body                    string
}

func (q rawRequest) do(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(q.verb, url+q.path, strings.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	if q.contentType != "" {
		r.Header.Set("Content-Type", q.contentType)
	}
	for line := range strings.Lines(q.fields) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		r.Header.Add(name, value)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// packed is text by gzip.
func packed(s string) string { return string(gzipped(nil, []byte(s))) }

// bomb is a megabyte for every kilobyte.
var bomb = packed(`"` + strings.Repeat("0", 8<<20) + `"`)

// enveloped is one message of a stream.
func enveloped(flags byte, data string) string {
	return string(wire.AppendPrefix(nil, wire.Prefix{Flags: flags, Length: uint32(len(data))})) + data
}

// ended takes the end of a stream from its answer.
func ended(t *testing.T, body string) connectEnd {
	t.Helper()
	b := []byte(body)
	for {
		p, ok := wire.ParsePrefix(b)
		if !ok || len(b) < wire.PrefixLen+int(p.Length) {
			t.Fatalf("answer %q has no end", body)
		}
		data := b[wire.PrefixLen : wire.PrefixLen+int(p.Length)]
		b = b[wire.PrefixLen+int(p.Length):]
		if p.Flags != flagEndStream {
			continue
		}
		var end connectEnd
		if err := json.Unmarshal(data, &end); err != nil || len(b) > 0 {
			t.Fatalf("end of stream %q, and %d bytes behind it: %v", data, len(b), err)
		}
		return end
	}
}

func TestConnectRefusesBadUnaryRequests(t *testing.T) {
	const version = "Connect-Protocol-Version: 1\n"
	query := func(q string) string { return pathGet + "?" + q }
	b64 := base64.RawURLEncoding.EncodeToString
	for name, c := range map[string]struct {
		rawRequest
		status  int
		code    string
		message string // a part of it
	}{
		"verb":                    {rawRequest{"DELETE", pathUnary, "application/proto", version, ""}, 405, "unknown", "POST"},
		"put":                     {rawRequest{"PUT", pathUnary, "application/proto", "", "x"}, 405, "unknown", "POST"},
		"path":                    {rawRequest{"POST", "/one", "application/proto", version, ""}, 404, "unimplemented", "/one"},
		"path that climbs":        {rawRequest{"POST", "/a.B/%2e%2e", "application/proto", version, ""}, 404, "unimplemented", "%2e%2e"},
		"codec":                   {rawRequest{"POST", pathUnary, "application/foo", version, ""}, 415, "unknown", "application/connect+json"},
		"no content type":         {rawRequest{"POST", pathUnary, "", version, ""}, 415, "unknown", "content type"},
		"charset":                 {rawRequest{"POST", pathUnary, "application/json; charset=latin1", version, "{}"}, 415, "unknown", "latin1"},
		"streaming codec":         {rawRequest{"POST", pathServer, "application/connect+xml", "", ""}, 415, "unknown", "connect+xml"},
		"streaming verb":          {rawRequest{"PUT", pathServer, "application/connect+proto", "", ""}, 405, "unknown", "POST"},
		"version":                 {rawRequest{"POST", pathUnary, "application/proto", "Connect-Protocol-Version: 2\n", ""}, 400, "invalid_argument", `"2"`},
		"timeout of 11 digits":    {rawRequest{"POST", pathUnary, "application/proto", "Connect-Timeout-Ms: 00000000001\n", ""}, 400, "invalid_argument", "10 digits"},
		"timeout below zero":      {rawRequest{"POST", pathUnary, "application/proto", "Connect-Timeout-Ms: -1\n", ""}, 400, "invalid_argument", "-1"},
		"timeout with a sign":     {rawRequest{"POST", pathUnary, "application/proto", "Connect-Timeout-Ms: +1\n", ""}, 400, "invalid_argument", "+1"},
		"two timeouts":            {rawRequest{"POST", pathUnary, "application/proto", "Connect-Timeout-Ms: 5\nConnect-Timeout-Ms: 6\n", ""}, 400, "invalid_argument", "5, 6"},
		"empty timeout":           {rawRequest{"POST", pathUnary, "application/proto", version + "Connect-Timeout-Ms: \n", ""}, 400, "invalid_argument", "timeout"},
		"two compressions":        {rawRequest{"POST", pathUnary, "application/proto", "Content-Encoding: gzip, gzip\n", "x"}, 501, "unimplemented", "gzip, identity"},
		"compression of JSON":     {rawRequest{"POST", pathUnary, "application/json", version + "Content-Encoding: br\n", "x"}, 501, "unimplemented", "gzip, identity"},
		"gzip that is none":       {rawRequest{"POST", pathUnary, "application/json", version + "Content-Encoding: gzip\n", `"a"`}, 400, "invalid_argument", "gzip"},
		"gzip cut short":          {rawRequest{"POST", pathUnary, "application/json", version + "Content-Encoding: gzip\n", packed(`"aaaa"`)[:15]}, 400, "invalid_argument", "gzip"},
		"gzip bomb":               {rawRequest{"POST", pathUnary, "application/json", version + "Content-Encoding: gzip\n", bomb}, 429, "resource_exhausted", "decompressed"},
		"large message":           {rawRequest{"POST", pathUnary, "application/proto", version, strings.Repeat("0", DefaultMaxMessage+1)}, 429, "resource_exhausted", "4194304"},
		"JSON that is none":       {rawRequest{"POST", pathUnary, "application/json", version, "\x0a\x01a"}, 400, "invalid_argument", "sluice: "},
		"JSON that is empty":      {rawRequest{"POST", pathUnary, "application/json", version, ""}, 400, "invalid_argument", "sluice: "},
		"JSON without a schema":   {rawRequest{"POST", "/test.v1.Echo/Nameless", "application/json", version, `"a"`}, 501, "unimplemented", "schema"},
		"JSON for no method":      {rawRequest{"POST", "/test.v1.Echo/Missing", "application/json", version, `"a"`}, 404, "unimplemented", "Missing"},
		"JSON for a stream":       {rawRequest{"POST", pathServer, "application/json", version, `"a"`}, 415, "unknown", "application/connect+json"},
		"stream for unary":        {rawRequest{"POST", pathUnary, "application/connect+json", version, ""}, 415, "unknown", "application/json"},
		"binary field":            {rawRequest{"POST", pathUnary, "application/proto", "X-Raw-Bin: ???\n", ""}, 400, "invalid_argument", "x-raw-bin"},
		"GET with side effects":   {rawRequest{"GET", pathUnary + "?connect=v1&encoding=json&message=%22a%22", "", "", ""}, 405, "unknown", "NO_SIDE_EFFECTS"},
		"GET of a stream":         {rawRequest{"GET", pathServer + "?connect=v1&encoding=json&message=%22a%22", "", "", ""}, 405, "unknown", "NO_SIDE_EFFECTS"},
		"GET without a schema":    {rawRequest{"GET", "/test.v1.Echo/Nameless?connect=v1&encoding=proto&message=", "", "", ""}, 501, "unimplemented", "GET"},
		"GET with a body":         {rawRequest{"GET", query("connect=v1&encoding=json&message=%22a%22"), "", "", "body"}, 415, "unknown", "query"},
		"GET of another version":  {rawRequest{"GET", query("connect=v2&encoding=json&message=%22a%22"), "", "", ""}, 400, "invalid_argument", "v1"},
		"GET without a message":   {rawRequest{"GET", query("connect=v1&encoding=json"), "", "", ""}, 400, "invalid_argument", `"message" is missing`},
		"GET without an encoding": {rawRequest{"GET", query("connect=v1&message=a"), "", "", ""}, 400, "invalid_argument", `"encoding" is missing`},
		"GET in another codec":    {rawRequest{"GET", query("connect=v1&encoding=xml&message=a"), "", "", ""}, 415, "unknown", `"xml"`},
		"GET with two messages":   {rawRequest{"GET", query("connect=v1&encoding=json&message=a&message=b"), "", "", ""}, 400, "invalid_argument", "more than once"},
		"GET with a bad escape":   {rawRequest{"GET", query("connect=v1&encoding=json&message=%22a%22&x=%zz"), "", "", ""}, 400, "invalid_argument", "query"},
		"GET of no base64":        {rawRequest{"GET", query("connect=v1&encoding=proto&base64=1&message=a%7Cb"), "", "", ""}, 400, "invalid_argument", "base64"},
		"GET of standard base64":  {rawRequest{"GET", query("connect=v1&encoding=proto&base64=1&message=%2B%2F%2B%2F"), "", "", ""}, 400, "invalid_argument", "base64"},
		"GET of broken base64":    {rawRequest{"GET", query("connect=v1&encoding=proto&base64=1&message=AA%0AAA"), "", "", ""}, 400, "invalid_argument", "base64"},
		"GET of base64, perhaps":  {rawRequest{"GET", query("connect=v1&encoding=proto&base64=yes&message=AAAA"), "", "", ""}, 400, "invalid_argument", `"base64"`},
		"GET of a bomb":           {rawRequest{"GET", query("connect=v1&encoding=json&base64=1&compression=gzip&message=" + b64([]byte(bomb))), "", "", ""}, 429, "resource_exhausted", "decompressed"},
		"GET compressed by br":    {rawRequest{"GET", query("connect=v1&encoding=json&compression=br&message=a"), "", "", ""}, 501, "unimplemented", "gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveConnect(t, &connectWay{backend: echo, methods: echoMethods()})
			for version := 1; version <= 2; version++ {
				resp, body := c.do(t, clientOf(t, version), s.URL)
				var e connectError
				if err := json.Unmarshal([]byte(body), &e); err != nil {
					t.Fatalf("HTTP %d with %q: %v", resp.StatusCode, body, err)
				}
				if resp.StatusCode != c.status || e.Code != c.code || !strings.Contains(e.Message, c.message) {
					t.Errorf("got HTTP %d %s, want %d %s and %q", resp.StatusCode, body, c.status, c.code, c.message)
				}
				if !strings.HasPrefix(e.Message, "sluice: ") || resp.Header.Get("Content-Type") != "application/json" {
					t.Errorf("got a %q that does not say who says so: %s", resp.Header.Get("Content-Type"), body)
				}
				if want := resp.Header.Get("Allow"); c.status == 405 && want != "POST" {
					t.Errorf("405 with Allow %q", want)
				}
				if want := resp.Header.Get("Accept-Post"); c.status == 415 && !strings.Contains(want, "application/connect+proto") {
					t.Errorf("415 with Accept-Post %q", want)
				}
			}
		})
	}
}

func TestConnectRefusesBadStreams(t *testing.T) {
	const (
		binary = "application/connect+proto"
		text   = "application/connect+json"
	)
	for name, c := range map[string]struct {
		rawRequest
		code    string
		message string
	}{
		"prefix cut short":        {rawRequest{"POST", pathClient, binary, "", "\x00\x00\x00"}, "invalid_argument", "3 of the 5 bytes"},
		"message cut short":       {rawRequest{"POST", pathClient, binary, "", "\x00\x00\x00\x00\x0aabc"}, "invalid_argument", "3 of 10 bytes"},
		"second one cut short":    {rawRequest{"POST", pathBidi, binary, "", enveloped(0, "a") + "\x00"}, "invalid_argument", "1 of the 5 bytes"},
		"4 GiB announced":         {rawRequest{"POST", pathClient, binary, "", "\x00\xff\xff\xff\xff"}, "resource_exhausted", "4194304"},
		"end in a request":        {rawRequest{"POST", pathClient, binary, "", enveloped(2, "{}")}, "invalid_argument", "end of the stream"},
		"flags of gRPC-Web":       {rawRequest{"POST", pathClient, binary, "", enveloped(0x80, "")}, "invalid_argument", "0x80"},
		"compression unsaid":      {rawRequest{"POST", pathClient, binary, "", enveloped(1, "abc")}, "internal", "connect-content-encoding"},
		"nothing compressed":      {rawRequest{"POST", pathClient, binary, "", enveloped(1, "")}, "internal", "connect-content-encoding"},
		"compression denied":      {rawRequest{"POST", pathClient, binary, "Connect-Content-Encoding: identity\n", enveloped(1, "abc")}, "internal", "connect-content-encoding"},
		"compression of JSON":     {rawRequest{"POST", pathClient, text, "Connect-Content-Encoding: zstd\n", ""}, "unimplemented", "gzip, identity"},
		"bomb":                    {rawRequest{"POST", pathClient, text, "Connect-Content-Encoding: gzip\n", enveloped(1, bomb)}, "resource_exhausted", "decompressed"},
		"JSON that is none":       {rawRequest{"POST", pathClient, text, "", enveloped(0, "{")}, "invalid_argument", "sluice: "},
		"none of one":             {rawRequest{"POST", pathServer, text, "", ""}, "unimplemented", "none came"},
		"two of one":              {rawRequest{"POST", pathServer, text, "", enveloped(0, `"a"`) + enveloped(0, `"b"`)}, "unimplemented", "a second"},
		"timeout":                 {rawRequest{"POST", pathServer, binary, "Connect-Timeout-Ms: soon\n", ""}, "invalid_argument", "soon"},
		"stream without a schema": {rawRequest{"POST", "/test.v1.Echo/Nameless", text, "", ""}, "unimplemented", "schema"},
		"path":                    {rawRequest{"POST", "/x/y/z", binary, "", ""}, "unimplemented", "/x/y/z"},
	} {
		t.Run(name, func(t *testing.T) {
			way := &connectWay{backend: echo, methods: echoMethods()}
			s := serveConnect(t, way)
			for version := 1; version <= 2; version++ {
				resp, body := c.do(t, clientOf(t, version), s.URL)
				if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != c.contentType {
					t.Fatalf("got HTTP %d with a %q, want 200 always", resp.StatusCode, resp.Header.Get("Content-Type"))
				}
				e := ended(t, body).Error
				if e == nil || e.Code != c.code || !strings.Contains(e.Message, c.message) || !strings.HasPrefix(e.Message, "sluice: ") {
					t.Errorf("ended by %+v, want %s and %q", e, c.code, c.message)
				}
			}
			way.mu.Lock()
			defer way.mu.Unlock()
			for _, call := range way.calls {
				call.mu.Lock()
				if call.aborted == nil || connectCodes[call.aborted.Code] != c.code {
					t.Errorf("the RPC was ended by %v, not by what the caller was told", call.aborted)
				}
				call.mu.Unlock()
			}
		})
	}
}

func TestConnectTellsWhenTheBackendBreaksTheProtocol(t *testing.T) {
	message := Message{Data: []byte("\x0a\x01a")}
	for name, c := range map[string]struct {
		backend func(*connectCall) *wire.Status
		codec   string
		status  int
		code    string
	}{
		"OK without a message":    {func(*connectCall) *wire.Status { return nil }, "proto", 501, "unimplemented"},
		"two messages":            {func(c *connectCall) *wire.Status { c.send(message); c.send(message); return nil }, "proto", 501, "unimplemented"},
		"a message, then failure": {func(c *connectCall) *wire.Status { c.send(message); return &wire.Status{Code: wire.DataLoss} }, "proto", 500, "data_loss"},
		"compressed by what nobody has": {func(c *connectCall) *wire.Status {
			c.encoding = "lzma"
			c.send(Message{Data: []byte("x"), Compressed: true})
			return nil
		}, "proto", 500, "internal"},
		"gzip that is none": {func(c *connectCall) *wire.Status {
			c.encoding = "gzip"
			c.send(Message{Data: []byte("x"), Compressed: true})
			return nil
		}, "json", 500, "internal"},
		"a bomb": {func(c *connectCall) *wire.Status {
			c.encoding = "gzip"
			c.send(Message{Data: []byte(bomb), Compressed: true})
			return nil
		}, "json", 429, "resource_exhausted"},
		"what is no message": {func(c *connectCall) *wire.Status { c.send(Message{Data: []byte{0xff}}); return nil }, "json", 500, "internal"},
		"an OK that fails":   {func(*connectCall) *wire.Status { return &wire.Status{Code: wire.OK} }, "proto", 500, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveConnect(t, &connectWay{backend: func(call *connectCall) *wire.Status { call.recv(); return c.backend(call) }, methods: echoMethods()})
			q := rawRequest{"POST", pathUnary, "application/" + c.codec, "Connect-Protocol-Version: 1\n", ""}
			if c.codec == "json" {
				q.body = `"a"`
			}
			resp, body := q.do(t, clientOf(t, 1), s.URL)
			var e connectError
			if err := json.Unmarshal([]byte(body), &e); err != nil || resp.StatusCode != c.status || e.Code != c.code {
				t.Errorf("got HTTP %d %s, want %d %s", resp.StatusCode, body, c.status, c.code)
			}
		})
	}
}

func TestConnectAnswersInWhatTheCallerTakes(t *testing.T) {
	plain, _ := proto.Marshal(wrapperspb.String(long))
	for name, c := range map[string]struct {
		codec, sent, accept string
		backend             string // the encoding of its answer
		want                string // of ours
	}{
		"passes what both have":             {"proto", "", "br, gzip", "br", "br"},
		"passes in the encoding of request": {"proto", "zstd", "", "zstd", "zstd"},
		"unpacks what was not asked for":    {"proto", "gzip", "identity", "gzip", ""},
		"unpacks what was refused":          {"proto", "gzip", "br, gzip;q=0.0", "gzip", ""},
		"packs JSON":                        {"json", "", "deflate, gzip;q=0.5", "", "gzip"},
		"packs JSON for anything":           {"json", "", "*", "", "gzip"},
		"leaves JSON":                       {"json", "", "br", "", ""},
		"repacks JSON":                      {"json", "gzip", "gzip", "gzip", "gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			way := &connectWay{methods: echoMethods(), backend: func(call *connectCall) *wire.Status {
				call.recv()
				call.encoding = c.backend
				m := Message{Data: plain}
				switch c.backend {
				case "":
				case encodingGzip:
					m = Message{Data: gzipped(nil, plain), Compressed: true}
				default:
					m = Message{Data: []byte("packed by " + c.backend), Compressed: true}
				}
				call.send(m)
				return nil
			}}
			s := serveConnect(t, way)
			q := rawRequest{verb: "POST", path: pathUnary, contentType: "application/" + c.codec, fields: "Connect-Protocol-Version: 1\n"}
			if c.sent != "" {
				q.fields += "Content-Encoding: " + c.sent + "\n"
			}
			if c.accept != "" {
				q.fields += "Accept-Encoding: " + c.accept + "\n"
			}
			switch {
			case c.codec == "proto":
				q.body = "opaque"
			case c.sent == encodingGzip:
				q.body = packed(`"a"`)
			default:
				q.body = `"a"`
			}
			resp, body := q.do(t, clientOf(t, 1), s.URL)
			if got := resp.Header.Get("Content-Encoding"); got != c.want || resp.StatusCode != 200 {
				t.Fatalf("HTTP %d with content-encoding %q, want %q", resp.StatusCode, got, c.want)
			}
			if c.codec == "proto" && c.want != "" && c.want != encodingGzip {
				if body != "packed by "+c.want {
					t.Errorf("the message did not pass as it was: %q", body)
				}
				return
			}
			if c.want == encodingGzip {
				unpacked, err := gunzip(nil, []byte(body), 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				body = string(unpacked)
			}
			if want := string(plain); c.codec == "proto" && body != want || c.codec == "json" && body != `"`+long+`"` {
				t.Errorf("got %d bytes of another message", len(body))
			}
			call := way.last(t)
			if c.codec == "json" && (call.o.Encoding != "" || call.o.AcceptEncoding != "") {
				t.Errorf("the backend heard of %q, %q: JSON is for the caller's hop", call.o.Encoding, call.o.AcceptEncoding)
			}
		})
	}
}

func TestConnectNeverUnpacksAnEmptyMessage(t *testing.T) {
	way := &connectWay{methods: echoMethods(), backend: func(c *connectCall) *wire.Status {
		m, _ := c.recv()
		if len(m.Data) > 0 || m.Compressed {
			t.Errorf("the backend got %q, compressed %t", m.Data, m.Compressed)
		}
		c.encoding = "gzip"
		c.send(Message{Compressed: true})
		return nil
	}}
	s := serveConnect(t, way)
	resp, body := rawRequest{"POST", pathUnary, "application/proto", "Content-Encoding: gzip\n", ""}.do(t, clientOf(t, 1), s.URL)
	if resp.StatusCode != 200 || body != "" || resp.Header.Get("Content-Encoding") != "" {
		t.Errorf("HTTP %d %q with content-encoding %q", resp.StatusCode, body, resp.Header.Get("Content-Encoding"))
	}
	resp, body = rawRequest{"POST", pathServer, "application/connect+proto", "Connect-Content-Encoding: gzip\n", enveloped(1, "")}.do(t, clientOf(t, 1), s.URL)
	if want := enveloped(0, ""); resp.StatusCode != 200 || !strings.HasPrefix(body, want) {
		t.Errorf("HTTP %d %q", resp.StatusCode, body)
	}
}

// A GET may say only at its end that it has no body.
func TestConnectTakesAGETThatEndsLate(t *testing.T) {
	s := serveConnect(t, &connectWay{backend: echo, methods: echoMethods()})
	for version := 1; version <= 2; version++ {
		r, err := http.NewRequest("GET", s.URL+pathGet+"?connect=v1&encoding=json&message=%22a%22", io.MultiReader())
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = -1
		resp, err := clientOf(t, version).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || string(body) != `"a"` {
			t.Errorf("HTTP/%d: %d %q, %v", version, resp.StatusCode, body, err)
		}
	}
}

func TestConnectTellsAMissingMethodFromOneToBeWritten(t *testing.T) {
	s := serveConnect(t, &connectWay{methods: echoMethods(), backend: func(c *connectCall) *wire.Status {
		return &wire.Status{Code: wire.Unimplemented, Message: "unknown"}
	}})
	for path, want := range map[string]int{"/test.v1.Echo/Missing": 404, pathUnary: 501, "/test.v1.Echo/Nameless": 501} {
		resp, body := rawRequest{"POST", path, "application/proto", "", ""}.do(t, clientOf(t, 1), s.URL)
		if resp.StatusCode != want || body != `{"code":"unimplemented","message":"unknown"}` {
			t.Errorf("%s: HTTP %d %s, want %d", path, resp.StatusCode, body, want)
		}
	}
}

func TestConnectPassesTheTimeoutOn(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "0": 1, "1500": 1500 * time.Millisecond, "9999999999": 9999999999 * time.Millisecond,
	} {
		r := httptest.NewRequest("POST", pathUnary, nil)
		r.Header.Set("Content-Type", "application/proto")
		if value != "" {
			r.Header.Set(fieldTimeout, value)
		}
		q, st := parseConnect(r)
		if st != nil {
			t.Fatal(st)
		}
		if got := q.opening().Timeout; got != want {
			t.Errorf("%q ms: timeout %s, want %s", value, got, want)
		}
	}
}

func TestConnectEndsWhenTheDeadlinePasses(t *testing.T) {
	way := &connectWay{methods: echoMethods(), backend: func(c *connectCall) *wire.Status {
		<-c.ctx.Done()
		return &wire.Status{Code: wire.DeadlineExceeded}
	}}
	s := serveConnect(t, way)
	resp, body := rawRequest{"POST", pathUnary, "application/proto", "Connect-Timeout-Ms: 50\n", ""}.do(t, clientOf(t, 1), s.URL)
	if resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(body, `"deadline_exceeded"`) {
		t.Errorf("HTTP %d %s", resp.StatusCode, body)
	}
	// The body that does not end must not keep the answer waiting.
	in, out := io.Pipe()
	defer out.Close()
	go out.Write([]byte("half"))
	r, err := http.NewRequest("POST", s.URL+pathUnary, in)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/proto")
	r.Header.Set(fieldTimeout, "50")
	resp, err = clientOf(t, 1).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("HTTP %d for half a request", resp.StatusCode)
	}
}

// A panic beside the exchange's goroutine ends the RPC, and goes on where it is caught.
func TestConnectPanicsOnlyWhereItIsCaught(t *testing.T) {
	way := &connectWay{methods: echoMethods(), backend: func(c *connectCall) *wire.Status {
		<-c.ctx.Done()
		return nil
	}}
	r := httptest.NewRequest("POST", pathBidi, broken{})
	r.Header.Set("Content-Type", "application/connect+proto")
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if v := recover(); v != "broken reader" {
				t.Errorf("recovered %v", v)
			}
			c := way.last(t)
			if c.aborted == nil || c.aborted.Code != wire.Internal || !c.closed {
				t.Errorf("the RPC ended for %v, closed %t, want INTERNAL", c.aborted, c.closed)
			}
		}()
		Connect{}.ServeConnect(httptest.NewRecorder(), r, way)
	})
}

// The gateway ends a stream whose caller keeps its side open.
func TestConnectEndsAStreamThatTheCallerKeepsOpen(t *testing.T) {
	way := &connectWay{methods: echoMethods(), backend: func(c *connectCall) *wire.Status {
		c.send(Message{Data: []byte("\x0a\x01a")})
		return &wire.Status{Code: wire.Aborted, Message: "enough"}
	}}
	s := serveConnect(t, way)
	for version := 1; version <= 2; version++ {
		in, out := io.Pipe()
		r, err := http.NewRequest("POST", s.URL+pathBidi, in)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/connect+proto")
		go out.Write([]byte(enveloped(0, "a")))
		resp, err := clientOf(t, version).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
		if end := ended(t, string(body)); end.Error == nil || end.Error.Code != "aborted" || end.Error.Message != "enough" {
			t.Errorf("HTTP/%d: ended by %+v", version, end.Error)
		}
		resp.Body.Close()
		out.Close()
	}
}

func TestConnectEndsTheRPCWhenTheCallerGoes(t *testing.T) {
	for version := 1; version <= 2; version++ {
		gone := make(chan struct{})
		way := &connectWay{methods: echoMethods(), backend: func(c *connectCall) *wire.Status {
			c.send(Message{Data: []byte("\x0a\x01a")})
			<-c.ctx.Done()
			close(gone)
			return nil
		}}
		s := serveConnect(t, way)
		r, err := http.NewRequest("POST", s.URL+pathServer, strings.NewReader(enveloped(0, "a")))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/connect+proto")
		resp, err := clientOf(t, version).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		select {
		case <-gone:
		case <-time.After(20 * time.Second):
			t.Fatalf("HTTP/%d: the backend never heard that the caller had gone", version)
		}
	}
}

func TestFailConnectSpeaksTheCallersForm(t *testing.T) {
	st := &wire.Status{Code: wire.Unimplemented, Message: "sluice: no route", HTTP: http.StatusNotFound, Gateway: true}
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", pathUnary, strings.NewReader("x"))
	r.Header.Set("Content-Type", "application/json")
	FailConnect(w, r, st)
	if w.Code != 404 || w.Body.String() != `{"code":"unimplemented","message":"sluice: no route"}` {
		t.Errorf("unary: HTTP %d %s", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	r.Header.Set("Content-Type", "Application/Connect+JSON; charset=utf-8")
	FailConnect(w, r, st)
	if e := ended(t, w.Body.String()).Error; w.Code != 200 || e.Code != "unimplemented" || w.Header().Get("Content-Type") != "application/connect+json" {
		t.Errorf("stream: HTTP %d %q %s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	r.Header.Set("Content-Type", "application/proto")
	w = httptest.NewRecorder()
	FailConnect(w, r, &wire.Status{Code: wire.ResourceExhausted, HTTP: http.StatusRequestEntityTooLarge})
	if w.Code != http.StatusTooManyRequests {
		t.Errorf("resource_exhausted is HTTP %d, want the protocol's 429", w.Code)
	}
}

func TestIsConnectLeavesOthersTheirRequests(t *testing.T) {
	for name, c := range map[string]struct {
		verb, target, contentType, field string
		want                             bool
	}{
		"stream":                   {"POST", pathServer, "application/connect+proto", "", true},
		"stream of a strange kind": {"POST", pathServer, "application/connect+thrift", "", true},
		"binary":                   {"POST", pathUnary, "application/proto", "", true},
		"JSON that says so":        {"POST", pathUnary, "application/json", fieldVersion, true},
		"JSON with a timeout":      {"POST", pathUnary, "application/json", fieldTimeout, true},
		"plain JSON":               {"POST", pathUnary, "application/json", "", false},
		"GET":                      {"GET", pathGet + "?connect=v1&encoding=json&message=1", "", "", true},
		"GET of REST":              {"GET", "/v1/carts?connect=valves", "", "", false},
		"GET of a longer path":     {"GET", "/v1/carts/7?connect=v1", "", "", false},
		"GET of a page":            {"GET", "/v1/carts?message=connect=v1", "", "", false},
		"gRPC":                     {"POST", pathUnary, "application/grpc", "", false},
		"protobuf of another name": {"POST", pathUnary, "application/protobuf", "", false},
	} {
		r := httptest.NewRequest(c.verb, c.target, nil)
		r.Header.Set("Content-Type", c.contentType)
		if c.field != "" {
			r.Header.Set(c.field, "1")
		}
		if got := IsConnect(r); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

func TestConnectErrorShowsDetailsForPeople(t *testing.T) {
	raw := []byte("\x12\x01x\x1a\x36\n\x28type.googleapis.com/google.rpc.RetryInfo\x12\x04\n\x02\x08\x07")
	raw[4] = byte(len(raw) - 5)
	raw = bytes.Replace(raw, []byte("\n\x28"), []byte{'\n', byte(len("type.googleapis.com/google.rpc.RetryInfo"))}, 1)
	got := string(connectJSON(errorOf(&wire.Status{Code: wire.Unavailable, Message: "x <&> y", Details: raw}, nil)))
	want := `{"code":"unavailable","message":"x <&> y","details":[{"type":"google.rpc.RetryInfo","value":"CgIIBw","debug":{"retryDelay":"7s"}}]}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	got = string(connectJSON(errorOf(&wire.Status{Code: wire.Unavailable, Details: []byte{0xff}}, nil)))
	if want := `{"code":"unavailable"}`; got != want {
		t.Errorf("unreadable details: got %s, want %s", got, want)
	}
}
