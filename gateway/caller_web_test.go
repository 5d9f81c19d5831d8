package gateway

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"sluice/gateway/web"
	"sluice/store"
)

// asked sends a gRPC-Web request over HTTP/2 and returns the response's header
// section and its whole body, decoded when it is text.
func asked(t *testing.T, client *peer, id uint32, path, form string, body []byte, extra ...string) (head event, got []byte) {
	t.Helper()
	if strings.Contains(form, "text") {
		body = web.AppendText(nil, body)
	}
	client.headers(id, false, append([]string{
		":method", "POST", ":scheme", "http", ":path", path, ":authority", "shop.example.com",
		"content-type", "application/grpc-" + form + "+proto", "x-grpc-web", "1",
	}, extra...)...)
	for len(body) > 1000 {
		client.data(id, body[:1000], false)
		body = body[1000:]
	}
	client.data(id, body, true)
	head = client.awaitHeaders(id)
	ended := head.end
	for !ended {
		e := client.awaitData(id)
		got, ended = append(got, e.data...), e.end
	}
	if strings.Contains(head.get("content-type"), "text") {
		raw, err := new(web.TextDecoder).Append(nil, got)
		if err != nil {
			t.Fatalf("the answer is no text: %v", err)
		}
		got = raw
	}
	return head, got
}

// trailersOf is the last message of a gRPC-Web response, in text.
func trailersOf(t *testing.T, body []byte) (messages []byte, trailers string) {
	t.Helper()
	i := bytes.LastIndex(body, []byte{0x80, 0})
	if i < 0 {
		t.Fatalf("no trailers in %q", body)
	}
	return body[:i], string(body[i+5:])
}

func TestWebCallerSpeaksGRPCWebOverHTTP2(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	id := uint32(1)
	for _, form := range []string{"web", "web-text"} {
		for _, size := range []int{0, 1, 2, 3, 1000, 20_000, 45_000} {
			sent := message(pattern(size, size))
			head, body := asked(t, client, id, "/shop.Cart/Echo", form, sent)
			id += 2
			if head.get(":status") != "200" || head.get("content-type") != "application/grpc-"+form+"+proto" {
				t.Fatalf("%s: %v", form, head)
			}
			got, trailers := trailersOf(t, body)
			if !bytes.Equal(got, sent) || !strings.HasPrefix(trailers, "grpc-status: 0\r\n") {
				t.Errorf("%s: %d bytes came back as %d, trailers %q", form, len(sent), len(got), trailers)
			}
		}
	}
	if got := g.metric(t, "sluice_rpc_path_total", "path", "relay"); got != 14 {
		t.Errorf("%v RPCs took the relay, want 14", got)
	}
}

// TestWebCallerAnswersInTheFormAsked: the request's form says how it is written, Accept
// how the answer is.
func TestWebCallerAnswersInTheFormAsked(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	for i, test := range []struct{ form, accept, want string }{
		{"web", "application/grpc-web-text", "web-text"},
		{"web-text", "application/grpc-web+proto", "web"},
		{"web-text", "*/*", "web-text"},
		{"web", "*/*", "web"},
	} {
		head, _ := asked(t, client, uint32(2*i+1), "/shop.Cart/Who", test.form, message(nil), "accept", test.accept)
		if got := head.get("content-type"); got != "application/grpc-"+test.want+"+proto" {
			t.Errorf("%s that accepts %s is answered in %s", test.form, test.accept, got)
		}
	}
}

// TestWebCallerKeepsTrailersOnly: a status without a message stays in the header
// section, with nothing behind it.
func TestWebCallerKeepsTrailersOnly(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	client.headers(1, false, ":method", "POST", ":scheme", "http", ":path", "/shop.Cart/Get", ":authority", "a", "content-type", "application/grpc-web")
	p := s.accept(t)
	req := p.awaitRequest()
	if req.get("content-type") != "application/grpc" || req.get("te") != "trailers" || req.get("grpc-accept-encoding") != "identity" || req.get("x-grpc-web") != "" {
		t.Errorf("the backend got %v", req)
	}
	p.headers(req.id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "5", "grpc-message", "none", "x-a", "1")
	if e := client.awaitHeaders(1); !e.end || e.get("grpc-status") != "5" || e.get("x-a") != "1" || e.get("content-type") != "application/grpc-web+proto" {
		t.Errorf("the caller got %v", e)
	}
}

// TestWebCallerIsToldInItsOwnForm: errors of the gateway, before and amid the answer.
func TestWebCallerIsToldInItsOwnForm(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendAt("a", s.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	client.headers(1, false, ":method", "POST", ":scheme", "http", ":path", "/shop.Cart/Get", ":authority", "a", "content-type", "application/grpc-web-text")
	p := s.accept(t)
	up := p.awaitRequest().id
	p.headers(up, false, answerHead...)
	p.data(up, message([]byte("part")), false)
	client.awaitHeaders(1)
	client.awaitBytes(1, 12)
	p.reset(up, http2.ErrCodeInternal)
	end := client.await("the end", func(e event) bool { return e.id == 1 && e.end })
	raw, err := base64.StdEncoding.DecodeString(string(end.data))
	if err != nil || !strings.Contains(string(raw), "grpc-status: 13\r\ngrpc-message: sluice: the backend reset the stream") {
		t.Errorf("the caller got %q, %v", raw, err)
	}

	for i, test := range []struct {
		name, form string
		body       []byte
	}{
		{"a flag that gRPC-Web does not have", "web", []byte{4, 0, 0, 0, 0}},
		{"trailers in a request", "web", []byte{0x80, 0, 0, 0, 0}},
		{"half a prefix", "web", []byte{0, 0}},
		{"half a message", "web", []byte{0, 0, 0, 0, 2, 1}},
		{"no base64", "web-text", []byte("AAAA!AAA")},
		{"padding that goes on", "web-text", []byte("A===")},
		{"half a quantum", "web-text", []byte("AAAAAAA=AA")},
	} {
		id := uint32(2*i + 3)
		client.headers(id, false, ":method", "POST", ":scheme", "http", ":path", "/shop.Cart/Get", ":authority", "a", "content-type", "application/grpc-"+test.form)
		client.data(id, test.body, true)
		e := client.awaitHeaders(id)
		if e.get("grpc-status") != "3" || !strings.HasPrefix(e.get("grpc-message"), "sluice: gRPC-Web: ") || !e.end {
			t.Errorf("%s: got %v", test.name, e)
		}
	}
	if got := g.metric(t, "sluice_rpc_outcome_total", "outcome", "bad_request"); got != 7 {
		t.Errorf("%v requests were bad, want 7", got)
	}
}

// TestWebCallerGivesNoMoreWindowThanWasTaken: text is longer than what it stands for,
// and a backend must not be told that more of its bytes are gone than were.
func TestWebCallerGivesNoMoreWindowThanWasTaken(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendAt("a", b.addr), routeTo("a", "a"))
	client := connect(t, g.address(), manners{})
	for i, form := range []string{"web", "web-text"} {
		_, body := asked(t, client, uint32(2*i+1), "/shop.Cart/Source", form, message([]byte("3000 1001")))
		got, trailers := trailersOf(t, body)
		if len(got) != 3000*1006 || !strings.HasPrefix(trailers, "grpc-status: 0\r\n") {
			t.Errorf("%s: %d bytes, %q", form, len(got), trailers)
		}
	}
}

func TestWebCallerTellsPagesOfOtherOriginsWhatTheyMaySee(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{})
	set := parse(t, backendAt("a", b.addr), routeTo("a", "a"))
	set.GRPCRoutes[0].Spec.Rules[0].Treatment.CORS = &store.CORS{AllowOrigins: []string{"https://shop.example.com"}}
	if err := g.Apply(set); err != nil {
		t.Fatal(err)
	}
	client := connect(t, g.address(), manners{})
	for i, test := range []struct{ origin, path, allowed string }{
		{"https://shop.example.com", "/shop.Cart/Who", "https://shop.example.com"},
		{"https://evil.example.com", "/shop.Cart/Who", ""},
		{"https://shop.example.com", "/shop.Cart/None", "https://shop.example.com"},
	} {
		head, _ := asked(t, client, uint32(2*i+1), test.path, "web", message(nil), "origin", test.origin)
		if got := head.get("access-control-allow-origin"); got != test.allowed {
			t.Errorf("%s at %s: allowed is %q", test.origin, test.path, got)
		}
		if exposed := head.get("access-control-expose-headers"); test.allowed != "" && !strings.Contains(exposed, "grpc-status-details-bin") {
			t.Errorf("exposed: %q", exposed)
		}
	}
	client.headers(101, true, ":method", "OPTIONS", ":scheme", "http", ":path", "/shop.Cart/Who", ":authority", "a",
		"origin", "https://shop.example.com", "access-control-request-method", "POST", "access-control-request-headers", "x-grpc-web,x-mine")
	if e := client.awaitHeaders(101); e.get(":status") != "204" || e.get("access-control-allow-headers") == "" {
		t.Errorf("preflight: %v", e)
	}
}

// TestWebCallerIsPassedThrough to a backend that speaks gRPC-Web itself; and is told in
// its own words when that is not there.
func TestWebCallerIsPassedThrough(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendWith("a", "accepts: [GRPC, GRPCWeb]", s.addr), routeTo("a", "a"),
		backendWith("gone", "accepts: [GRPC, GRPCWeb]", "127.0.0.1:1"), routeWith("gone", "matches: [{method: {service: gone}}]", "gone"))
	client := connect(t, g.address(), manners{})
	client.headers(1, false, ":method", "POST", ":scheme", "http", ":path", "/shop.Cart/Get", ":authority", "a", "content-type", "application/grpc-web-text", "x-grpc-web", "1")
	client.data(1, []byte("AAAAAAA="), true)
	p := s.accept(t)
	req := p.awaitRequest()
	if req.get("content-type") != "application/grpc-web-text" || req.get("x-grpc-web") != "1" {
		t.Errorf("the backend got %v", req)
	}
	p.headers(req.id, false, ":status", "200", "content-type", "application/grpc-web-text")
	p.data(req.id, []byte("gAAAAAA="), true)
	client.awaitHeaders(1)
	if e := client.awaitData(1); string(e.data) != "gAAAAAA=" || !e.end {
		t.Errorf("the caller got %v", e)
	}
	client.headers(3, true, ":method", "POST", ":scheme", "http", ":path", "/gone/Get", ":authority", "a", "content-type", "application/grpc-web")
	if e := client.awaitHeaders(3); e.get(":status") != "200" || e.get("grpc-status") != "14" || e.get("content-type") != "application/grpc-web+proto" || !e.end {
		t.Errorf("of a backend that is gone the caller got %v", e)
	}
}
