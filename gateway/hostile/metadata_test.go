package hostile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/gateway"
)

// listener is a raw backend that answers everything and shows what it got.
func listener(t testing.TB) (*village, chan answer) {
	t.Helper()
	v, seen := settle(t), make(chan answer, 16)
	v.become(manners{end: func(p *peer, id uint32) {
		seen <- p.snapshot(id)
		p.write(script{}.headers(id, false, answerHead()).headers(id, true, answerTail()))
	}}, nil)
	return v, seen
}

// What may come once comes once, and a timeout is 1 to 8 digits and a unit.
func TestB6FieldsThatMayComeOnce(t *testing.T) {
	backend, seen := listener(t)
	r := newRigHere(t, patient, backend)
	p := r.dial(manners{})
	const reset = "reset PROTOCOL_ERROR"
	for _, test := range []struct {
		more []string
		want string
	}{
		{[]string{"content-type", "application/grpc"}, reset},
		{[]string{"content-type", "text/html"}, reset},
		{[]string{"te", "trailers"}, reset},
		{[]string{"te", "gzip"}, reset},
		{[]string{"grpc-timeout", "1S", "grpc-timeout", "1S"}, reset},
		{[]string{"grpc-timeout", "1S", "grpc-timeout", "2S"}, reset},
		{[]string{"content-length", "6", "content-length", "6"}, reset},
		{[]string{"content-length", "6", "content-length", "7"}, reset},
		{[]string{"content-length", "5"}, reset},
		{[]string{"content-length", "7"}, reset},
		{[]string{"content-length", "6, 6"}, reset},
		{[]string{"content-length", ""}, reset},
		{[]string{"content-length", "6"}, "status 0"},
		{[]string{"grpc-timeout", "1S"}, "status 0"},
		{[]string{"grpc-timeout", "99999999H"}, "status 0"},
		{[]string{"grpc-timeout", "00000001M"}, "status 0"},
		{[]string{"grpc-timeout", "0n"}, "status 4"},
		{[]string{"grpc-timeout", "1n"}, "status 4"},
		{[]string{"grpc-timeout", ""}, "status 13"},
		{[]string{"grpc-timeout", "1"}, "status 13"},
		{[]string{"grpc-timeout", "S"}, "status 13"},
		{[]string{"grpc-timeout", "1s"}, "status 13"},
		{[]string{"grpc-timeout", "123456789S"}, "status 13"},
		{[]string{"grpc-timeout", "000000001S"}, "status 13"},
		{[]string{"grpc-timeout", "-1S"}, "status 13"},
		{[]string{"grpc-timeout", "+1S"}, "status 13"},
		{[]string{"grpc-timeout", "1.5S"}, "status 13"},
		{[]string{"grpc-timeout", "0x1S"}, "status 13"},
		{[]string{"grpc-timeout", "1e3S"}, "status 13"},
		{[]string{"grpc-timeout", "1S 2S"}, "status 13"},
		{[]string{"grpc-timeout", "1S,2S"}, "status 13"},
		{[]string{"grpc-timeout", "\xd9\xa1S"}, "status 13"},
		{[]string{"x-token-bin", "not base64!"}, "status 13"},
		{[]string{"x-token-bin", "AAE"}, "status 0"},
		{[]string{"x-token-bin", "AAE="}, "status 0"},
		{[]string{"x-token-bin", "AAE=,AAE"}, "status 0"},
	} {
		a := p.call(append(grpcHead(evil, echo), block(test.more...)...), message(1))
		if a.String() != test.want {
			t.Errorf("%q: %v, want %s", test.more, &a, test.want)
		}
		if a.status() != "0" {
			continue
		}
		request := <-seen
		// What the gateway forwards is the time that remains: never more than was given.
		if request.get("grpc-timeout") != "" && test.more[0] != "grpc-timeout" {
			t.Errorf("%q: a timeout of %q was made up", test.more, request.get("grpc-timeout"))
		}
		if all := request.all("te"); len(all) != 1 || all[0] != "trailers" {
			t.Errorf("%q: forwarded te %q, want trailers alone", test.more, all)
		}
	}
	if len(seen) > 0 {
		t.Errorf("%d requests more than answered reached the backend", len(seen))
	}
}

// identities are the fields by which the gateway tells a backend who called, and
// those that servers take for them.
var identities = []string{
	"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix",
	"x-forwarded-server", "x-forwarded-ssl", "x-forwarded-client-cert", "x-real-ip", "x-user-id",
}

// aliases writes each dash of a name as a dash and as an underscore.
func aliases(name string) []string {
	i := strings.IndexByte(name, '-')
	if i < 0 {
		return []string{name}
	}
	var list []string
	for _, rest := range aliases(name[i+1:]) {
		list = append(list, name[:i]+"-"+rest, name[:i]+"_"+rest)
	}
	return list
}

// A client cannot speak for the gateway: whatever it claims, under whichever name a
// server may read as the gateway's, the backend sees what the gateway says.
func TestB7IdentityOfTheCaller(t *testing.T) {
	backend, seen := listener(t)
	cfg := nodeConfig{}
	cfg.Resources = fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: known}
spec:
  rules:
  - filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: X-User-Id, value: nobody}], remove: [X-Admin]}
    backendRefs: [{group: sluice.dev, kind: Backend, name: known}]
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: known}
spec: {endpoints: [{address: %q}]}
`, backend.addr())
	r := newRigHere(t, cfg)
	p := r.dial(manners{})
	var claims [][]string
	for _, name := range append(identities, "x-admin", "forwarded") {
		for _, alias := range aliases(name) {
			claims = append(claims, []string{alias, "evil"})
		}
		claims = append(claims, []string{name, "evil", name, "evil"}, []string{name, ""}, []string{name, "127.0.0.1, evil"})
	}
	if len(claims) < 60 {
		t.Fatalf("%d claims, want 60", len(claims))
	}
	want := map[string]string{"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http", "x-forwarded-host": good, "x-user-id": "nobody"}
	for _, claim := range claims {
		if a := p.call(append(grpcHead(good, echo), block(claim...)...), message(1)); a.status() != "0" {
			t.Errorf("claim %q: %v, want status 0", claim, &a)
			continue
		}
		request := <-seen
		for _, f := range request.head {
			name := strings.ReplaceAll(f.Name, "_", "-")
			if strings.Contains(f.Value, "evil") {
				t.Errorf("claim %q: the backend sees %s: %s", claim, f.Name, f.Value)
			}
			if v, ours := want[name]; ours && (f.Name != name || f.Value != v) {
				t.Errorf("claim %q: the backend sees %s: %q, want %s: %q alone", claim, f.Name, f.Value, name, v)
			}
		}
		for name, v := range want {
			if got := request.all(name); !slices.Equal(got, []string{v}) {
				t.Errorf("claim %q: the backend sees %s %q, want %q", claim, name, got, v)
			}
		}
	}
	// Upper case, and a Connection field that names ours, are no requests.
	for _, claim := range [][]string{
		{"X-Forwarded-For", "evil"},
		{"connection", "x-forwarded-for"},
		{"connection", "close, x-user-id"},
		{"x-forwarded-for ", "evil"},
		{"x-forwarded-for:", "evil"},
		{":x-forwarded-for", "evil"},
	} {
		if a := p.call(append(grpcHead(good, echo), block(claim...)...), message(1)); !a.wasReset {
			t.Errorf("claim %q: %v, want a reset", claim, &a)
		}
	}
	if len(seen) > 0 {
		t.Errorf("%d requests more than answered reached the backend", len(seen))
	}
}

// Behind a proxy that is trusted, what stands before its own entry is the client's
// word; behind a peer that is not, so is everything.
func TestB7TrustedProxies(t *testing.T) {
	backend, seen := listener(t)
	for _, test := range []struct {
		name    string
		trusted string
		hops    int
		sent    []string
		want    string
	}{
		{"no trust", "192.0.2.0/24", 0, []string{"evil, 203.0.113.7"}, "127.0.0.1"},
		{"no trust, hops", "192.0.2.0/24", 2, []string{"evil, 203.0.113.7"}, "127.0.0.1"},
		{"one hop", "127.0.0.0/8", 1, []string{"evil, 203.0.113.7"}, "203.0.113.7, 127.0.0.1"},
		{"one hop in two fields", "127.0.0.0/8", 1, []string{"evil", "203.0.113.7"}, "203.0.113.7, 127.0.0.1"},
		{"two hops", "127.0.0.0/8", 2, []string{"evil, 203.0.113.7, 198.51.100.1"}, "203.0.113.7, 198.51.100.1, 127.0.0.1"},
		{"IPv4 in IPv6", "::ffff:127.0.0.0/104", 1, []string{"evil, 203.0.113.7"}, "203.0.113.7, 127.0.0.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRigHere(t, limits(func(c *gateway.Config) {
				c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(test.trusted)}
				c.TrustedHops = test.hops
			}), backend)
			p := r.dial(manners{})
			head := grpcHead(evil, echo, "x_forwarded_for", "evil", "x-forwarded_for", "evil")
			for _, v := range test.sent {
				head = append(head, block("x-forwarded-for", v)...)
			}
			if a := p.call(head, message(1)); a.status() != "0" {
				t.Fatalf("%v, want status 0", &a)
			}
			request := <-seen
			if got := strings.Join(request.all("x-forwarded-for"), ", "); got != test.want {
				t.Errorf("the backend sees x-forwarded-for %q, want %q", got, test.want)
			}
			for _, f := range request.head {
				if strings.Contains(f.Value, "evil") && f.Name != ":authority" {
					t.Errorf("the backend sees %s: %s", f.Name, f.Value)
				}
			}
		})
	}
}

// padded is a header block of exactly that size, as RFC 9113 section 6.5.2 counts
// it, beyond what the given one has.
func padded(base []byte, used, size int) []byte {
	b := slices.Clone(base)
	for left := size - used; left > 0; {
		n := min(left, 1000)
		if left-n > 0 && left-n < 40 {
			n -= 40 // the last field must have room for itself
		}
		b = literal(b, "x-pad", strings.Repeat("p", n-32-len("x-pad")))
		left -= n
	}
	return b
}

func listSize(pairs ...string) (n int) {
	for i := 0; i < len(pairs); i += 2 {
		n += len(pairs[i]) + len(pairs[i+1]) + 32
	}
	return n
}

// The limit on metadata is 16 KiB, both ways: below it nothing is lost, beyond it
// the caller is told so.
func TestB8SizeOfMetadata(t *testing.T) {
	backend := settle(t)
	type response struct{ head, tail []byte }
	var next atomic.Pointer[response]
	backend.become(manners{end: func(p *peer, id uint32) {
		r := next.Load()
		p.write(script{}.headers(id, false, r.head).headers(id, true, r.tail))
	}}, nil)
	r := newRigHere(t, nodeConfig{}, backend)
	p := r.dial(manners{})
	plain := response{answerHead(), answerTail()}
	head := grpcHead(evil, echo)
	usedHead := listSize(":method", "POST", ":scheme", "http", ":authority", evil, ":path", echo, "content-type", "application/grpc", "te", "trailers")
	answered := listSize(":status", "200", "content-type", "application/grpc")
	ended := listSize("grpc-status", "0")
	many := func(b []byte, n int) []byte {
		for range n {
			b = literal(b, "x-many", "1")
		}
		return b
	}
	const below, at, above = 15*1024 + 900, 16 * 1024, 16*1024 + 100
	for _, test := range []struct {
		name     string
		request  []byte
		response response
		want     string
		by       string // outcome
	}{
		{"request of 15.9 KiB", padded(head, usedHead, below), plain, "0", "served"},
		{"request of 16 KiB", padded(head, usedHead, at), plain, "0", "served"},
		{"request of 16.1 KiB", padded(head, usedHead, above), plain, "8", "request_headers"},
		{"request of 60 KiB", padded(head, usedHead, 60<<10), plain, "8", "request_headers"},
		{"request of 100 fields", many(slices.Clone(head), 94), plain, "0", "served"},
		{"request of 101 fields", many(slices.Clone(head), 95), plain, "8", "request_headers"},
		{"header of 15.9 KiB", head, response{padded(answerHead(), answered, below), answerTail()}, "0", "served"},
		{"header of 16.1 KiB", head, response{padded(answerHead(), answered, above), answerTail()}, "8", "response_headers"},
		{"trailers of 15.9 KiB", head, response{answerHead(), padded(answerTail(), ended, below)}, "0", "served"},
		{"trailers of 16.1 KiB", head, response{answerHead(), padded(answerTail(), ended, above)}, "8", "response_headers"},
		{"trailers of 60 KiB", head, response{answerHead(), padded(answerTail(), ended, 60<<10)}, "8", "response_headers"},
		{"trailers of 101 fields", head, response{answerHead(), many(answerTail(), 100)}, "8", "response_headers"},
		{"trailers of 1 MiB", head, response{answerHead(), padded(answerTail(), ended, 1<<20)}, "14", "backend_lost"},
	} {
		before := r.counters(t)
		next.Store(&test.response)
		a := p.call(test.request, message(1))
		if a.status() != test.want {
			t.Errorf("%s: %v, want status %s", test.name, &a, test.want)
		}
		if msg := a.get("grpc-message"); test.want != "0" && !strings.HasPrefix(msg, "sluice: ") {
			t.Errorf("%s: message %q does not name the gateway", test.name, msg)
		}
		if d := r.counters(t).since(before); d[outcome(test.by)] != 1 {
			t.Errorf("%s: outcome %s grew by %v, want 1", test.name, test.by, d[outcome(test.by)])
		}
		pads := len(a.all("x-pad"))
		if test.want == "0" && strings.Contains(test.name, "15.9") && !strings.HasPrefix(test.name, "request") && pads < 15 {
			t.Errorf("%s: %d of the fields arrived", test.name, pads)
		}
	}
	next.Store(&plain)
	if !eventually(2*time.Second, func() bool { a := p.call(head, message(1)); return a.status() == "0" }) {
		t.Error("the backend is not in use again after 2s")
	}
}
