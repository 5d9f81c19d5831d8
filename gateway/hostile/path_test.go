package hostile

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"

	"sluice/gateway"
)

// secret is the method that a route of its own guards; everything else goes to the
// public backend.
const (
	secret = "/hostile.Admin/Delete"
	public = "/hostile.Public/Read"
)

// guarded routes secret to one raw backend and the rest to another.
func guarded(t testing.TB) (r *rig, admin, open *village, seen chan reached) {
	t.Helper()
	admin, open = settle(t), settle(t)
	seen = make(chan reached, 16)
	for name, v := range map[string]*village{"admin": admin, "public": open} {
		v.become(manners{end: func(p *peer, id uint32) {
			seen <- reached{name, p.snapshot(id)}
			p.write(script{}.headers(id, false, answerHead()).headers(id, true, answerTail()))
		}}, nil)
	}
	cfg := limits(func(c *gateway.Config) { c.Limits.Resets = 10_000 })
	cfg.Resources = fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: split}
spec:
  rules:
  - matches: [{method: {service: hostile.Admin, method: Delete}}]
    backendRefs: [{group: sluice.dev, kind: Backend, name: admin}]
  - backendRefs: [{group: sluice.dev, kind: Backend, name: public}]
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: admin}
spec: {endpoints: [{address: %q}]}
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: public}
spec: {endpoints: [{address: %q}]}
`, admin.addr(), open.addr())
	return newRigHere(t, cfg), admin, open, seen
}

// reached is a request at the backend that it came to.
type reached struct {
	backend string
	request answer
}

// What becomes of a path.
const (
	toAdmin  = "admin"
	toPublic = "public"
	refused  = "12"
	broken   = "reset PROTOCOL_ERROR"
)

var paths = []struct{ path, want string }{
	{secret, toAdmin},
	{public, toPublic},
	{"/hostile.admin/Delete", toPublic},
	{"/hostile.Admin/delete", toPublic},
	{"/HOSTILE.ADMIN/DELETE", toPublic},
	{"/hostile.Admin/Delete2", toPublic},
	{"/hostile.Admin.v2/Delete", toPublic},
	{"/a/b", toPublic},
	{"/A-Za-z0-9._~!$&'()*+,=:@/m", toPublic},
	{"hostile.Admin/Delete", broken},
	{"", broken},
	{"*", broken},
	{" /hostile.Admin/Delete", broken},
	{"/hostile.Admin/Delete ", broken},
	{"/hostile.Admin/Delete\t", broken},
	{"/hostile.Admin/Delete#x", broken},
	{"/hostile.Admin/Delete\x00", broken},
	{"/hostile.Admin/Delete\r\nx: y", broken},
	{"/hostile.Admin/Del\xc3\xa9te", broken},
	{"http://" + good + secret, broken},
	{"/", refused},
	{"//", refused},
	{"/hostile.Admin", refused},
	{"/hostile.Admin/", refused},
	{"//Delete", refused},
	{"/hostile.Admin/Delete/", refused},
	{"//hostile.Admin/Delete", refused},
	{"/hostile.Admin//Delete", refused},
	{"/x/hostile.Admin/Delete", refused},
	{"/hostile.Public/../hostile.Admin/Delete", refused},
	{"/./hostile.Admin/Delete", refused},
	{"/hostile.Admin/../Delete", refused},
	{"/hostile.Admin/..", refused},
	{"/../Delete", refused},
	{"/./Delete", refused},
	{"/hostile.Admin/.", refused},
	{"/hostile.Admin%2FDelete", refused},
	{"/hostile.Admin/%44elete", refused},
	{"/hostile.Admin%2fDelete/x", refused},
	{"/hostile%2EAdmin/Delete", refused},
	{"/hostile.Admin/Delete%00", refused},
	{"/hostile.Admin/Delete;x=y", refused},
	{"/hostile.Admin;/Delete", refused},
	{"/hostile.Admin/Delete?x=y", refused},
	{"/hostile.Admin/Delete?", refused},
	{"/?/hostile.Admin/Delete", refused},
	{"/hostile.Admin\\Delete", refused},
	{"/hostile.Admin/Delete\\", refused},
	{"/hostile.Admin/\"Delete\"", refused},
}

// What a path is routed by is what was sent and what is forwarded, byte for byte.
func TestB3Paths(t *testing.T) {
	r, _, _, seen := guarded(t)
	p := r.dial(manners{})
	for _, test := range paths {
		a := p.call(grpcHead(good, test.path), message(1))
		switch test.want {
		case toAdmin, toPublic:
			if a.status() != "0" {
				t.Errorf("%q: %v, want the %s backend", test.path, &a, test.want)
				continue
			}
			got := <-seen
			if got.backend != test.want || got.request.get(":path") != test.path {
				t.Errorf("%q reached %s as %q, want %s as it was", test.path, got.backend, got.request.get(":path"), test.want)
			}
		case refused:
			if a.status() != refused {
				t.Errorf("%q: %v, want status 12", test.path, &a)
			}
		case broken:
			if a.String() != broken {
				t.Errorf("%q: %v, want %s", test.path, &a, broken)
			}
		}
	}
	if len(seen) > 0 {
		t.Errorf("%d requests more than answered reached a backend", len(seen))
	}
}

// disguises write a path in another way that some server takes for the same.
var disguises = []func(p string, i int) string{
	func(p string, i int) string { return p[:i] + fmt.Sprintf("%%%02x", p[i]) + p[i+1:] },
	func(p string, i int) string { return p[:i] + fmt.Sprintf("%%%02X", p[i]) + p[i+1:] },
	func(p string, i int) string { return p[:i] + fmt.Sprintf("%%25%02x", p[i]) + p[i+1:] },
	func(p string, i int) string { return p[:i] + ";" + p[i:] },
	func(p string, i int) string { return p[:i] + ";jsessionid=1" + p[i:] },
	func(p string, i int) string { return p[:i] + "/" + p[i:] },
	func(p string, i int) string { return p[:i] + "/./" + p[i:] },
	func(p string, i int) string { return p[:i] + "/x/../" + p[i:] },
	func(p string, i int) string { return p[:i] + "/%2e%2e/" + p[i:] },
	func(p string, i int) string { return p[:i] + "\\" + p[i:] },
	func(p string, i int) string { return p[:i] + "?" + p[i:] },
	func(p string, i int) string { return p[:i] + "#" + p[i:] },
	func(p string, i int) string { return p[:i] + "%00" + p[i:] },
	func(p string, i int) string { return p[:i] + "\x00" + p[i:] },
	func(p string, i int) string { return p[:i] + "%c0%af" + p[i:] },
	func(p string, i int) string { return p[:i] + "\u200b" + p[i:] },
	func(p string, i int) string { return p[:i] + strings.ToUpper(p[i:i+1]) + p[i+1:] },
	func(p string, i int) string { return p[:i] + strings.ToLower(p[i:i+1]) + p[i+1:] },
	func(p string, i int) string { return p[:i] + " " + p[i:] },
	func(p string, i int) string { return p[:i] + "+" + p[i:] },
	func(p string, i int) string { return p[:i] },
}

// No disguise of the guarded method reaches any backend but under its own bytes, and
// none that a server might see through reaches any at all.
func TestB4DisguisedPaths(t *testing.T) {
	r, _, _, seen := guarded(t)
	p := r.dial(manners{})
	tried, passed := 0, 0
	for _, disguise := range disguises {
		for i := range len(secret) {
			sent := disguise(secret, i)
			a := p.call(grpcHead(good, sent), message(1))
			tried++
			if a.status() != "0" {
				continue
			}
			passed++
			got := <-seen
			if got.request.get(":path") != sent {
				t.Errorf("%q was forwarded as %q", sent, got.request.get(":path"))
			}
			if want := toPublic; sent != secret && got.backend != want {
				t.Errorf("%q reached %s, want %s", sent, got.backend, want)
			}
			if sent != secret && canonical(sent) == secret {
				t.Errorf("%q reached %s; a server may take it for %q", sent, got.backend, secret)
			}
		}
	}
	t.Logf("%d paths, %d forwarded as they were, the others refused", tried, passed)
	if tried < 400 || passed == 0 {
		t.Errorf("%d paths tried, %d forwarded, want 400 and some", tried, passed)
	}
}

// canonical is what a lenient server may make of a path.
func canonical(p string) string {
	for range 3 {
		if u, err := url.PathUnescape(p); err == nil {
			p = u
		}
	}
	p = strings.ReplaceAll(p, "\\", "/")
	for _, stop := range []string{"?", "#", "\x00"} {
		p, _, _ = strings.Cut(p, stop)
	}
	var segments []string
	for _, s := range strings.Split(p, "/") {
		s, _, _ = strings.Cut(s, ";")
		segments = append(segments, strings.TrimSpace(s))
	}
	return path.Clean(strings.Join(segments, "/"))
}

// One authority is routed by, and that one is forwarded.
func TestB5Authorities(t *testing.T) {
	backend := settle(t)
	seen := make(chan answer, 1)
	backend.become(manners{end: func(p *peer, id uint32) {
		seen <- p.snapshot(id)
		p.write(script{}.headers(id, false, answerHead()).headers(id, true, answerTail()))
	}}, nil)
	r := newRigHere(t, limits(func(c *gateway.Config) {}), backend)
	without := block(":method", "POST", ":scheme", "http", ":path", echo, "content-type", "application/grpc", "te", "trailers")
	const (
		goes  = "0"
		route = "12"
		reset = "reset PROTOCOL_ERROR"
	)
	for _, test := range []struct {
		name      string
		head      []byte
		want      string
		forwarded string
	}{
		{"as it is", grpcHead(evil, echo), goes, evil},
		{"with a port", grpcHead(evil+":8080", echo), goes, evil + ":8080"},
		{"host alone", slices.Concat(without, block("host", evil)), goes, evil},
		{"host the same", grpcHead(evil, echo, "host", evil), goes, evil},
		{"host differs", grpcHead(evil, echo, "host", good), reset, ""},
		{"host differs by a port", grpcHead(evil, echo, "host", evil+":80"), reset, ""},
		{"host differs by case", grpcHead(evil, echo, "host", strings.ToUpper(evil)), reset, ""},
		{"two authorities", append(block(":authority", evil), grpcHead(good, echo)...), reset, ""},
		{"two hosts", slices.Concat(without, block("host", evil, "host", good)), reset, ""},
		{"user information", grpcHead(evil+"@"+good, echo), reset, ""},
		{"user and password", grpcHead("a:b@"+evil, echo), reset, ""},
		{"a path", grpcHead(evil+"/x", echo), reset, ""},
		{"a query", grpcHead(evil+"?x", echo), reset, ""},
		{"a fragment", grpcHead(evil+"#x", echo), reset, ""},
		{"a backslash", grpcHead(evil+"\\x", echo), reset, ""},
		{"a comma", grpcHead(evil+","+good, echo), reset, ""},
		{"a space", grpcHead(evil+" "+good, echo), reset, ""},
		{"a line", grpcHead(evil+"\r\nhost: "+good, echo), reset, ""},
		{"a nul", grpcHead(evil+"\x00", echo), reset, ""},
		{"not ASCII", grpcHead("h\u00f6stile.test", echo), reset, ""},
		{"user in host", slices.Concat(without, block("host", "a@"+evil)), reset, ""},
		{"IDN", grpcHead("xn--hstile-xxa.test", echo), route, ""},
		{"percent", grpcHead("hostile%2d0.test", echo), route, ""},
		{"above it", grpcHead("x."+evil, echo), route, ""},
		{"below it", grpcHead("test", echo), route, ""},
		{"empty", grpcHead("", echo), reset, ""},
	} {
		p := r.dial(manners{})
		a := p.call(test.head, message(1))
		got := a.status()
		if a.wasReset {
			got = a.String()
		}
		if got != test.want {
			t.Errorf("%s: %v, want %s", test.name, &a, test.want)
		}
		if a.status() == goes {
			request := <-seen
			if all := request.all(":authority"); len(all) != 1 || all[0] != test.forwarded || request.get("host") != "" {
				t.Errorf("%s: forwarded authorities %q and host %q, want %q alone", test.name, all, request.get("host"), test.forwarded)
			}
			if f := request.all("x-forwarded-host"); len(f) != 1 || f[0] != test.forwarded {
				t.Errorf("%s: x-forwarded-host %q, want %q", test.name, f, test.forwarded)
			}
		}
		p.close()
	}
	// Written in another way, a name is the same name to DNS; whichever way the
	// gateway takes it, it must not change it.
	for _, same := range []string{strings.ToUpper(evil), evil + ".", evil + ".:80"} {
		p := r.dial(manners{})
		a := p.call(grpcHead(same, echo), message(1))
		switch a.status() {
		case "0":
			request := <-seen
			if got := request.get(":authority"); got != same {
				t.Errorf("%q was forwarded as %q", same, got)
			}
		case "12":
		default:
			t.Errorf("%q: %v, want it forwarded or status 12", same, &a)
		}
		t.Logf("%q: %v", same, &a)
		p.close()
	}
}
