package gateway

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"

	"sluice/gateway/listen"
)

func TestSessionTellsWhereRequestsComeFrom(t *testing.T) {
	t.Parallel()
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	elsewhere := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	spoof := []string{
		"x-forwarded-for", "6.6.6.6", "x-forwarded-proto", "https", "x-forwarded-host", "bank.example.com",
		"forwarded", "for=6.6.6.6", "x-real-ip", "6.6.6.6", "x_forwarded_for", "6.6.6.6", "x-forwarded_for", "6.6.6.6", "x_real_ip", "6.6.6.6",
	}
	tests := []struct {
		name    string
		proxies []netip.Prefix
		hops    int
		sent    []string
		want    map[string][]string
	}{
		{
			name: "nothing sent",
			want: map[string][]string{"x-forwarded-for": {"127.0.0.1"}, "x-forwarded-proto": {"http"}, "x-forwarded-host": {"shop.example.com"}},
		},
		{
			name: "nobody trusted", sent: spoof,
			want: map[string][]string{
				"x-forwarded-for": {"127.0.0.1"}, "x-forwarded-proto": {"http"}, "x-forwarded-host": {"shop.example.com"},
				"forwarded": nil, "x-real-ip": nil, "x_forwarded_for": nil, "x-forwarded_for": nil, "x_real_ip": nil,
			},
		},
		{
			name: "others trusted", proxies: elsewhere, hops: 2, sent: spoof,
			want: map[string][]string{"x-forwarded-for": {"127.0.0.1"}, "x-forwarded-proto": {"http"}, "x-forwarded-host": {"shop.example.com"}},
		},
		{
			name: "a trusted proxy", proxies: loopback, sent: []string{"x-forwarded-for", "6.6.6.6, 192.0.2.7", "x-forwarded-proto", "https", "x-forwarded-host", "shop.test"},
			want: map[string][]string{"x-forwarded-for": {"192.0.2.7", "127.0.0.1"}, "x-forwarded-proto": {"https"}, "x-forwarded-host": {"shop.test"}},
		},
		{
			name: "a trusted proxy that adds a field of its own", proxies: loopback, sent: []string{"x-forwarded-for", "6.6.6.6", "x-forwarded-for", "192.0.2.7"},
			want: map[string][]string{"x-forwarded-for": {"192.0.2.7", "127.0.0.1"}},
		},
		{
			name: "a trusted proxy that says nothing of the scheme", proxies: loopback, sent: []string{"x-forwarded-for", "192.0.2.7"},
			want: map[string][]string{"x-forwarded-for": {"192.0.2.7", "127.0.0.1"}, "x-forwarded-proto": {"http"}, "x-forwarded-host": {"shop.example.com"}},
		},
		{
			name: "a trusted proxy, and underscores of somebody else", proxies: loopback, sent: []string{"x-forwarded-for", "192.0.2.7", "x_forwarded_for", "6.6.6.6", "x_real_ip", "6.6.6.6"},
			want: map[string][]string{"x-forwarded-for": {"192.0.2.7", "127.0.0.1"}, "x_forwarded_for": nil, "x_real_ip": nil},
		},
		{
			name: "two hops", hops: 2, sent: []string{"x-forwarded-for", "6.6.6.6,192.0.2.7", "x-forwarded-for", "192.0.2.8"},
			want: map[string][]string{"x-forwarded-for": {"192.0.2.7, 192.0.2.8", "127.0.0.1"}},
		},
		{
			name: "two hops and one entry", hops: 2, sent: []string{"x-forwarded-for", "192.0.2.8"},
			want: map[string][]string{"x-forwarded-for": {"192.0.2.8", "127.0.0.1"}},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := startScript(t, manners{})
			g := startGateway(t, Config{TrustedProxies: test.proxies, TrustedHops: test.hops}, backendAt("a", s.addr), routeTo("a", "a"))
			client := connect(t, g.address(), manners{})
			client.request(1, "/shop.Cart/Get", test.sent...)
			got := s.accept(t).awaitRequest()
			for name, want := range test.want {
				if !slices.Equal(got.all(name), want) {
					t.Errorf("%s: got %q, want %q", name, got.all(name), want)
				}
			}
		})
	}
}

// TestSessionBelievesThePROXYHeader of a load balancer in front.
func TestSessionBelievesThePROXYHeader(t *testing.T) {
	t.Parallel()
	v2 := func(src, dst string) string {
		s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
		b := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c")
		b = append(append(b, s.Addr().AsSlice()...), d.Addr().AsSlice()...)
		return string(append(b, byte(s.Port()>>8), byte(s.Port()), byte(d.Port()>>8), byte(d.Port())))
	}
	tests := []struct{ name, header, want string }{
		{"version 1", "PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n", "192.0.2.7"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n", "2001:db8::7"},
		{"version 1, unknown", "PROXY UNKNOWN\r\n", "127.0.0.1"},
		{"version 2", v2("192.0.2.8:40000", "198.51.100.1:443"), "192.0.2.8"},
	}
	s := startScript(t, manners{})
	g := startGateway(t, Config{Listen: listen.Config{Address: "127.0.0.1:0", ProxyProtocol: true}}, backendAt("a", s.addr), routeTo("a", "a"))
	for _, test := range tests {
		nc, err := net.Dial("tcp", g.address())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(nc, test.header)
		client := greet(t, nc, manners{})
		client.request(1, "/shop.Cart/Get", "x-forwarded-for", "6.6.6.6")
		p := s.accept(t)
		s.peers <- p
		got := p.awaitRequest()
		if want := []string{test.want}; !slices.Equal(got.all("x-forwarded-for"), want) {
			t.Errorf("%s: x-forwarded-for is %q, want %q", test.name, got.all("x-forwarded-for"), want)
		}
		p.reply(got.id, nil)
		client.await("end", func(e event) bool { return e.id == 1 && e.end })
	}
	for _, header := range []string{"", "PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n"} {
		nc, err := net.Dial("tcp", g.address())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(nc, header)
		greet(t, nc, manners{}).awaitEnd()
	}
}
