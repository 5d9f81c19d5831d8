package h2

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// headFault is one section that must be refused. A request and a response get
// the faulty lines added to, or in place of, what every one of them has.
type headFault struct {
	name  string
	lines []string
}

// anySection is refused wherever it stands: requests, responses, trailers of both.
var anySection = []headFault{
	{"unknown pseudo-field", []string{":x: y"}},
	{"empty pseudo-field name", []string{":: y"}},
	{"upper-case name", []string{"X-Upper: y"}},
	{"empty name", []string{": y"}},
	{"space in a name", []string{"x y: z"}},
	{"name that ends in a space", []string{"x : z"}},
	{"slash in a name", []string{"x/y: z"}},
	{"byte over 0x7f in a name", []string{"x\xc3\xa9: z"}},
	{"NUL in a value", []string{"x: a\x00b"}},
	{"CR in a value", []string{"x: a\rb"}},
	{"LF in a value", []string{"x: a\nb"}},
	{"CR LF in a value", []string{"x: a\r\ny: b"}},
	{"DEL in a value", []string{"x: a\x7fb"}},
	{"escape in a value", []string{"x: a\x1bb"}},
	{"leading space in a value", []string{"x:  y"}},
	{"leading tab in a value", []string{"x: \ty"}},
	{"trailing space in a value", []string{"x: y "}},
	{"trailing tab in a value", []string{"x: y\t"}},
	{"connection", []string{"connection: close"}},
	{"connection that names another field", []string{"connection: x-secret"}},
	{"proxy-connection", []string{"proxy-connection: keep-alive"}},
	{"keep-alive", []string{"keep-alive: timeout=5"}},
	{"transfer-encoding", []string{"transfer-encoding: chunked"}},
	{"upgrade", []string{"upgrade: h2c"}},
	{"te other than trailers", []string{"te: gzip"}},
	{"te of more than trailers", []string{"te: trailers, deflate"}},
	{"content-length twice", []string{"content-length: 0", "content-length: 0"}},
	{"two content-lengths", []string{"content-length: 1", "content-length: 2"}},
	{"list of content-lengths", []string{"content-length: 0, 0"}},
	{"negative content-length", []string{"content-length: -1"}},
	{"signed content-length", []string{"content-length: +0"}},
	{"hexadecimal content-length", []string{"content-length: 0x0"}},
	{"empty content-length", []string{"content-length: "}},
	{"content-length over 63 bits", []string{"content-length: 9223372036854775808"}},
	{"content-type twice", []string{"content-type: application/grpc", "content-type: application/grpc"}},
	{"grpc-timeout twice", []string{"grpc-timeout: 1S", "grpc-timeout: 2S"}},
	{"te twice", []string{"te: trailers", "te: trailers"}},
	{"grpc-status twice", []string{"grpc-status: 0", "grpc-status: 1"}},
	{"host twice", []string{"host: shop.example.com", "host: shop.example.com"}},
}

var requestFaults = []headFault{
	{"no method", without(":method")},
	{"no scheme", without(":scheme")},
	{"no path", without(":path")},
	{"method twice", with(":method: POST")},
	{"scheme twice", with(":scheme: http")},
	{"path twice", with(":path: /shop.v1.Cart/Get")},
	{"authority twice", with(":authority: shop.example.com")},
	{"empty authority", put(":authority", "")},
	{"empty authority beside a host", append(put(":authority", ""), "host: shop.example.com")},
	{"empty authority twice", append(without(":authority"), ":authority: ", ":authority: ")},
	{"status", with(":status: 200")},
	{"protocol of extended CONNECT", with(":protocol: websocket")},
	{"pseudo-field behind a regular one", append(without(":path"), "x: y", ":path: /")},
	{"empty path", put(":path", "")},
	{"path without slash", put(":path", "shop.v1.Cart/Get")},
	{"path in absolute form", put(":path", "http://shop.example.com/")},
	{"path with a space", put(":path", "/a b")},
	{"path with a fragment", put(":path", "/a#b")},
	{"path with a tab", put(":path", "/a\tb")},
	{"path with DEL", put(":path", "/a\x7f")},
	{"path with raw bytes over 0x7f", put(":path", "/caf\xc3\xa9")},
	{"asterisk without OPTIONS", put(":path", "*")},
	{"method with a request line in it", put(":method", "GET /x HTTP/1.1")},
	{"empty method", put(":method", "")},
	{"method with a colon", put(":method", "GET:")},
	{"CONNECT", []string{":method: CONNECT", ":authority: shop.example.com:443"}},
	{"CONNECT with a path", put(":method", "CONNECT")},
	{"empty scheme", put(":scheme", "")},
	{"scheme in upper case", put(":scheme", "HTTP")},
	{"scheme of its own", put(":scheme", "grpc")},
	{"scheme with a path", put(":scheme", "http://x/")},
	{"authority with user information", put(":authority", "user@shop.example.com")},
	{"authority with a slash", put(":authority", "shop.example.com/x")},
	{"authority with a backslash", put(":authority", `shop.example.com\x`)},
	{"authority with a query", put(":authority", "shop.example.com?x")},
	{"authority with a fragment", put(":authority", "shop.example.com#x")},
	{"authority with a space", put(":authority", "shop.example.com x")},
	{"authority with a comma", put(":authority", "shop.example.com,evil.example")},
	{"authority with a byte over 0x7f", put(":authority", "sh\xc3\xb6p.example.com")},
	{"host other than authority", with("host: evil.example")},
	{"empty host beside an authority", with("host: ")},
	{"host with user information", append(without(":authority"), "host: user@shop.example.com")},
	{"host with a slash", append(without(":authority"), "host: shop.example.com/x")},
}

var responseFaults = []headFault{
	{"no status", []string{"content-type: application/grpc"}},
	{"no field", nil},
	{"status twice", []string{":status: 200", ":status: 200"}},
	{"status of two digits", []string{":status: 20"}},
	{"status of four digits", []string{":status: 2000"}},
	{"status with a sign", []string{":status: +20"}},
	{"status of letters", []string{":status: abc"}},
	{"status with a reason", []string{":status: 200 OK"}},
	{"status below 100", []string{":status: 099"}},
	{"empty status", []string{":status: "}},
	{"switching protocols", []string{":status: 101"}},
	{"status behind a regular field", []string{"x: y", ":status: 200"}},
	{"path", []string{":status: 200", ":path: /"}},
	{"method", []string{":status: 200", ":method: GET"}},
	{"scheme", []string{":status: 200", ":scheme: http"}},
	{"authority", []string{":status: 200", ":authority: x"}},
	{"empty authority", []string{":status: 200", ":authority: "}},
}

var trailerFaults = []headFault{
	{"status", []string{":status: 200"}},
	{"path", []string{":path: /"}},
	{"authority", []string{":authority: "}},
	{"status behind a regular field", []string{"x: y", ":status: 200"}},
}

func with(lines ...string) []string {
	i := 0 // pseudo-fields stay in front
	if strings.HasPrefix(lines[0], ":") {
		return append(requestLines()[i:], lines...)
	}
	return append(requestLines(), lines...)
}

func without(name string) []string {
	return slices.DeleteFunc(requestLines(), func(l string) bool { return strings.HasPrefix(l, name+":") })
}

func put(name, value string) []string {
	lines := requestLines()
	for i, l := range lines {
		if strings.HasPrefix(l, name+":") {
			lines[i] = name + ": " + value
		}
	}
	return lines
}

func TestHeadRefusesRequests(t *testing.T) {
	faults := slices.Clone(requestFaults)
	for _, f := range anySection {
		faults = append(faults, headFault{f.name, with(f.lines...)})
	}
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedServer(t, Limits{})
				p.writeHeaders(1, false, tt.lines...)
				p.wantFrame("malformed", debugReset{1, http2.ErrCodeProtocol})
				p.rec.want(t, "it is never accepted")
				p.wantRejected(ReasonMalformed, 1)
				p.request(3, true)
			})
		})
	}
}

func TestHeadRefusesResponses(t *testing.T) {
	faults := slices.Clone(responseFaults)
	for _, f := range anySection {
		lines := append([]string{":status: 200"}, f.lines...)
		faults = append(faults, headFault{f.name, lines})
		lines = append([]string{":status: 103"}, f.lines...)
		faults = append(faults, headFault{f.name + " in an informational response", lines})
	}
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedClient(t, Limits{})
				p.opened(false)
				p.rec.skip()
				p.writeHeaders(1, false, tt.lines...)
				p.wantFrame("malformed", debugReset{1, http2.ErrCodeProtocol})
				p.rec.want(t, "its sink hears only of the fault", "ended 1 violation PROTOCOL_ERROR")
				p.wantRejected(ReasonMalformed, 1)
			})
		})
	}
}

func TestHeadRefusesTrailers(t *testing.T) {
	for _, side := range sides {
		for _, tt := range append(slices.Clone(trailerFaults), anySection...) {
			t.Run(tt.name+"/"+side.String(), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					p := greetedEither(t, side, Limits{})
					openEither(p)
					answered(p)
					p.rec.skip()
					p.writeHeaders(1, true, tt.lines...)
					p.wantFrame("malformed", debugReset{1, http2.ErrCodeProtocol})
					p.rec.want(t, "its sink hears only of the fault", "ended 1 violation PROTOCOL_ERROR")
				})
			})
		}
	}
}

func TestHeadReadsRequests(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		check func(h *Head) bool
	}{
		{"authority", requestLines(), func(h *Head) bool {
			return h.Method == "POST" && h.Scheme == "http" && h.Path == "/shop.v1.Cart/Get" && h.Authority == "shop.example.com" && h.ContentLength == -1
		}},
		{"pseudo-fields in any order", []string{":path: /", ":authority: x", ":method: GET", ":scheme: https"}, func(h *Head) bool {
			return h.Path == "/" && h.Authority == "x" && h.Scheme == "https"
		}},
		{"host for authority", append(without(":authority"), "host: shop.example.com:8080"), func(h *Head) bool {
			return h.Authority == "shop.example.com:8080"
		}},
		{"host like authority", with("host: shop.example.com"), func(h *Head) bool { return h.Authority == "shop.example.com" }},
		{"address for authority", put(":authority", "[2001:db8::1]:443"), func(h *Head) bool { return h.Authority == "[2001:db8::1]:443" }},
		{"OPTIONS of the server", []string{":method: OPTIONS", ":scheme: http", ":path: *", ":authority: x"}, func(h *Head) bool { return h.Path == "*" }},
		{"path with a query and escapes", put(":path", "/a%20b//../;x?q=%&r=?"), func(h *Head) bool { return h.Path == "/a%20b//../;x?q=%&r=?" }},
		{"method of its own", put(":method", "M-SEARCH"), func(h *Head) bool { return h.Method == "M-SEARCH" }},
		{"what gRPC sends", with("te: trailers", "content-type: application/grpc+proto", "grpc-timeout: 1S", "grpc-status: 3"), func(h *Head) bool {
			return h.ContentType == "application/grpc+proto" && h.Timeout == "1S" && h.GRPCStatus == "3"
		}},
		{"length", with("content-length: 9223372036854775807"), func(h *Head) bool { return h.ContentLength == 1<<63-1 }},
		{"empty value, tab inside, bytes over 0x7f", with("x: ", "y: a\tb", "z: \xff\x80"), func(h *Head) bool {
			x, ok := h.Get("x")
			z, _ := h.Get("z")
			return ok && x == "" && z == "\xff\x80"
		}},
		{"cookies in crumbs", with("cookie: a=b", "cookie: c=d"), func(h *Head) bool { return len(h.Fields) == 6 }},
		{"field that is not there", requestLines(), func(h *Head) bool { _, ok := h.Get("x"); return !ok }},
		{"good base64", with("x-bin: AAEC,AAE=,AAE, ,+/+/", "y-bin: "), func(h *Head) bool { return !h.BadBinary }},
		{"bad base64", with("x-bin: AA-_"), func(h *Head) bool { return h.BadBinary }},
		{"base64 of a bad length", with("x-bin: A"), func(h *Head) bool { return h.BadBinary }},
		{"nothing but padding", with("x-bin: ===="), func(h *Head) bool { return h.BadBinary }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var h Head
			if err := h.readRequest(decoded(t, tt.lines...)); err != nil {
				t.Fatal(err)
			}
			if !tt.check(&h) {
				t.Errorf("read %+v", h)
			}
		})
	}
}

// decoded sends fields through HPACK, as they come to a Head.
func decoded(t testing.TB, lines ...string) []Field {
	t.Helper()
	dec := newDecoder()
	fields, _, err := dec.decode(nil, hpackBlock(splitFields(lines...)...), wide)
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

// Every byte in every place is refused, or passed on as it is (FAULTS B2).
func TestHeadRefusesOrKeepsEveryByte(t *testing.T) {
	for c := range 256 {
		b := string([]byte{byte(c)})
		for _, tt := range []struct {
			place string
			lines []string
			read  func(h *Head, fields []Field) error
			value func(h *Head) string
			want  string
		}{
			{"value of a request", with("x: a" + b + "z"), (*Head).readRequest, last, "a" + b + "z"},
			{"beginning of a value", with("x: " + b + "z"), (*Head).readRequest, last, b + "z"},
			{"value of a response", []string{":status: 200", "grpc-message: a" + b + "z"}, (*Head).readResponse, last, "a" + b + "z"},
			{"value of a trailer", []string{"grpc-message: a" + b + "z"}, (*Head).readTrailers, last, "a" + b + "z"},
			{"path", put(":path", "/a"+b+"z"), (*Head).readRequest, func(h *Head) string { return h.Path }, "/a" + b + "z"},
			{"method", put(":method", "G"+b+"T"), (*Head).readRequest, func(h *Head) string { return h.Method }, "G" + b + "T"},
			{"authority", put(":authority", "a"+b+"z"), (*Head).readRequest, func(h *Head) string { return h.Authority }, "a" + b + "z"},
		} {
			var h Head
			if err := tt.read(&h, decoded(t, tt.lines...)); err == nil && tt.value(&h) != tt.want {
				t.Errorf("byte %#02x in the %s: got %q, want %q or an error", c, tt.place, tt.value(&h), tt.want)
			} else if err == nil && (c < ' ' && c != '\t' || c == 0x7f) {
				t.Errorf("byte %#02x in the %s is accepted", c, tt.place)
			}
		}
		name := "a" + b + "z"
		f := IndexedField(name, "v")
		if want := httpguts.ValidHeaderFieldName(name) && strings.ToLower(name) == name; (f.kind != kindBad) != want {
			t.Errorf("byte %#02x in a name: accepted %v, want %v", c, f.kind != kindBad, want)
		}
	}
}

func last(h *Head) string { return h.Fields[len(h.Fields)-1].Value }

// FuzzHead holds what is accepted against what must be refused, written down a
// second time in the words of x/net and net/url.
func FuzzHead(f *testing.F) {
	add := func(section byte, lines []string) { f.Add(section, strings.Join(lines, "\x01")) }
	for _, t := range requestFaults {
		add(0, t.lines)
	}
	for _, t := range responseFaults {
		add(1, t.lines)
	}
	for _, t := range append(slices.Clone(trailerFaults), anySection...) {
		add(0, with(t.lines...))
		add(1, append([]string{":status: 200"}, t.lines...))
		add(2, t.lines)
	}
	add(0, requestLines())
	add(0, with("te: trailers", "host: shop.example.com", "x-bin: AAE=", "content-length: 7"))
	f.Fuzz(func(t *testing.T, section byte, text string) {
		var lines []string
		if text != "" {
			lines = strings.Split(text, "\x01")
		}
		fields := splitFields(lines...)
		var h Head
		var err error
		switch decoded := decoded(t, lines...); section % 3 {
		case 0:
			err = h.readRequest(decoded)
		case 1:
			err = h.readResponse(decoded)
		default:
			err = h.readTrailers(decoded)
		}
		if err != nil {
			return
		}
		if why := forbidden(section%3, fields); why != "" {
			t.Fatalf("accepted %q: %s", lines, why)
		}
	})
}

// forbidden says why a section must be refused, if it must: 0 for requests, 1 for
// responses, 2 for trailers.
func forbidden(section byte, fields []hpack.HeaderField) string {
	pseudo, count := map[string]string{}, map[string]int{}
	regular := false
	for _, f := range fields {
		count[f.Name]++
		switch {
		case f.Name != strings.ToLower(f.Name):
			return "upper case"
		case !httpguts.ValidHeaderFieldValue(f.Value) || strings.Trim(f.Value, " \t") != f.Value:
			return "value " + strconv.Quote(f.Value)
		case strings.HasPrefix(f.Name, ":"):
			if regular {
				return "late pseudo-field"
			}
			pseudo[f.Name] = f.Value
			continue
		case !httpguts.ValidHeaderFieldName(f.Name):
			return "name " + strconv.Quote(f.Name)
		}
		regular = true
		switch f.Name {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			return f.Name
		case "te":
			if f.Value != "trailers" {
				return "te"
			}
		case "content-length":
			if n, err := strconv.ParseInt(f.Value, 10, 64); err != nil || n < 0 || f.Value[0] == '+' || f.Value[0] == '-' {
				return "content-length"
			}
		}
	}
	for _, name := range []string{":method", ":scheme", ":path", ":authority", ":status", "host", "content-length", "content-type", "grpc-timeout", "te", "grpc-status"} {
		if count[name] > 1 {
			return name + " twice"
		}
	}
	allowed := [][]string{{":method", ":scheme", ":path", ":authority"}, {":status"}, nil}[section]
	for name := range pseudo {
		if !slices.Contains(allowed, name) {
			return name + " does not belong here"
		}
	}
	switch section {
	case 0:
		return forbiddenRequest(pseudo, fields)
	case 1:
		n, err := strconv.Atoi(pseudo[":status"])
		if err != nil || fmt.Sprint(n) != pseudo[":status"] || n < 100 || n > 999 || n == 101 {
			return "status"
		}
	}
	return ""
}

func forbiddenRequest(pseudo map[string]string, fields []hpack.HeaderField) string {
	path, authority := pseudo[":path"], pseudo[":authority"]
	switch {
	case !httpguts.ValidHeaderFieldName(pseudo[":method"]) || pseudo[":method"] == "CONNECT":
		return "method"
	case pseudo[":scheme"] != "http" && pseudo[":scheme"] != "https":
		return "scheme"
	case path == "*" && pseudo[":method"] != "OPTIONS" || path != "*" && !strings.HasPrefix(path, "/"):
		return "path"
	case strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }):
		return "path"
	}
	for _, f := range fields {
		if f.Name == "host" {
			if authority != "" && f.Value != authority {
				return "host"
			}
			if authority == "" {
				authority = f.Value
			}
		}
	}
	if authority == "" {
		return ""
	}
	if u, err := url.Parse("http://" + authority + "/p?q#f"); err == nil && (u.User != nil || u.Path != "/p" || u.RawQuery != "q" || u.Fragment != "f") {
		return "authority"
	}
	if strings.ContainsAny(authority, "@/?#\\, \t") {
		return "authority"
	}
	return ""
}
