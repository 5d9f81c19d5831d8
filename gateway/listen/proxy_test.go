package listen

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
	"golang.org/x/net/http2"
)

// v2 makes a header of version 2.
func v2(command, family byte, length int, addrs string) string {
	b := append([]byte(nil), proxyV2...)
	b = append(b, command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	return string(b) + addrs
}

const (
	inet4 = "\xc0\x00\x02\x01\xc6\x33\x64\x02\x9c\x40\x01\xbb" // 192.0.2.1 198.51.100.2 40000 443
	inet6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x9c\x40\x01\xbb"
	mapped6 = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x33\x64\x02\x9c\x40\x01\xbb"
)

var proxyHeaders = []struct {
	name   string
	header string
	source string // "" where the socket's own is meant
	wrong  bool
}{
	{name: "v1 tcp4", header: "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n", source: "192.0.2.1:40000"},
	{name: "v1 tcp6", header: "PROXY TCP6 2001:db8::1 2001:db8::2 40000 443\r\n", source: "[2001:db8::1]:40000"},
	{name: "v1 tcp6, mapped", header: "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 40000 443\r\n", source: "192.0.2.1:40000"},
	{name: "v1 unknown", header: "PROXY UNKNOWN\r\n"},
	{name: "v1 unknown with something", header: "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"},
	{
		name:   "v1 of 107 bytes",
		header: "PROXY UNKNOWN " + strings.Repeat("f", 107-len("PROXY UNKNOWN \r\n")) + "\r\n",
	},
	{
		name:   "v1 of 108 bytes",
		header: "PROXY UNKNOWN " + strings.Repeat("f", 108-len("PROXY UNKNOWN \r\n")) + "\r\n", wrong: true,
	},
	{name: "v1 without CR", header: "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\n", wrong: true},
	{name: "v1 with a short list", header: "PROXY TCP4 192.0.2.1 198.51.100.2 40000\r\n", wrong: true},
	{name: "v1 with a long list", header: "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443 1\r\n", wrong: true},
	{name: "v1 with two spaces", header: "PROXY TCP4  192.0.2.1 198.51.100.2 40000 443\r\n", wrong: true},
	{name: "v1 of the other family", header: "PROXY TCP4 2001:db8::1 2001:db8::2 40000 443\r\n", wrong: true},
	{name: "v1 of no family", header: "PROXY UDP4 192.0.2.1 198.51.100.2 40000 443\r\n", wrong: true},
	{name: "v1 in lower case", header: "proxy TCP4 192.0.2.1 198.51.100.2 40000 443\r\n", wrong: true},
	{name: "v1 with a name", header: "PROXY TCP4 localhost 198.51.100.2 40000 443\r\n", wrong: true},
	{name: "v1 with a zone", header: "PROXY TCP6 fe80::1%eth0 2001:db8::2 40000 443\r\n", wrong: true},
	{name: "v1 with a port too large", header: "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n", wrong: true},
	{name: "v1 with a signed port", header: "PROXY TCP4 192.0.2.1 198.51.100.2 +1 443\r\n", wrong: true},
	{name: "v1 with a padded port", header: "PROXY TCP4 192.0.2.1 198.51.100.2 040 443\r\n", wrong: true},
	{name: "v1 with no port", header: "PROXY TCP4 192.0.2.1 198.51.100.2  443\r\n", wrong: true},
	{name: "v1 with nothing", header: "PROXY \r\n", wrong: true},
	{name: "v2 tcp4", header: v2(0x21, 0x11, 12, inet4), source: "192.0.2.1:40000"},
	{name: "v2 tcp6", header: v2(0x21, 0x21, 36, inet6), source: "[2001:db8::1]:40000"},
	{name: "v2 tcp6, mapped", header: v2(0x21, 0x21, 36, mapped6), source: "192.0.2.1:40000"},
	{name: "v2 with fields behind", header: v2(0x21, 0x11, 15, inet4+"\x04\x00\x00"), source: "192.0.2.1:40000"},
	{name: "v2 local", header: v2(0x20, 0x00, 0, "")},
	{name: "v2 local with addresses", header: v2(0x20, 0x11, 12, inet4)},
	{name: "v2 local of no family", header: v2(0x20, 0xff, 3, "abc")},
	{name: "v2 unspecified", header: v2(0x21, 0x00, 0, "")},
	{name: "v2 unix", header: v2(0x21, 0x31, 216, strings.Repeat("u", 216))},
	{name: "v2 datagrams", header: v2(0x21, 0x12, 12, inet4)},
	{name: "v2 of 552 bytes", header: v2(0x21, 0x11, 536, inet4+strings.Repeat("\x00", 524)), source: "192.0.2.1:40000"},
	{name: "v2 of 553 bytes", header: v2(0x21, 0x11, 537, inet4+strings.Repeat("\x00", 525)), wrong: true},
	{name: "v2 with too little", header: v2(0x21, 0x21, 12, inet4), wrong: true},
	{name: "v2 of no family", header: v2(0x21, 0x41, 12, inet4), wrong: true},
	{name: "v2 of no protocol", header: v2(0x21, 0x13, 12, inet4), wrong: true},
	{name: "v2 of no command", header: v2(0x22, 0x11, 12, inet4), wrong: true},
	{name: "v2 of version 1", header: v2(0x11, 0x11, 12, inet4), wrong: true},
	{name: "v3", header: v2(0x31, 0x11, 12, inet4), wrong: true},
	{name: "none", header: "GET / HTTP/1.1\r\n\r\n", wrong: true},
	{name: "half a signature", header: "\r\n\r\n\x00\r\nQUIX", wrong: true},
}

func TestParseProxyHeader(t *testing.T) {
	for _, test := range proxyHeaders {
		t.Run(test.name, func(t *testing.T) {
			const behind = "and what follows"
			got, size, err := parseProxyHeader([]byte(test.header+behind), defaultProxyLength)
			if test.wrong {
				if !errors.Is(err, errProxyHeader) || size != 0 {
					t.Fatalf("%v of %d bytes, %v; want an error", got, size, err)
				}
				return
			}
			if err != nil || size != len(test.header) {
				t.Fatalf("%d bytes, %v; want %d", size, err, len(test.header))
			}
			source := ""
			if got.source.IsValid() {
				source = got.source.String()
			}
			if source != test.source {
				t.Errorf("source %q; want %q", source, test.source)
			}
			if got.source.IsValid() != got.destination.IsValid() {
				t.Error("one address without the other")
			}
			for n := range test.header {
				if _, size, err := parseProxyHeader([]byte(test.header[:n]), defaultProxyLength); size != 0 || err != nil {
					t.Fatalf("the first %d bytes: size %d, %v; want more", n, size, err)
				}
			}
		})
	}
}

func TestTrustOf(t *testing.T) {
	tests := []struct {
		prefixes string
		peer     string
		want     bool
	}{
		{"", "192.0.2.1", true},
		{"192.0.2.0/24", "192.0.2.1", true},
		{"192.0.2.0/24", "192.0.3.1", false},
		{"::ffff:192.0.2.0/120", "192.0.2.1", true},
		{"::ffff:0:0/96", "192.0.2.1", true},
		{"::/0", "192.0.2.1", false},
		{"10.0.0.0/8 2001:db8::/32", "2001:db8::7", true},
	}
	for _, test := range tests {
		var prefixes []netip.Prefix
		for _, s := range strings.Fields(test.prefixes) {
			prefixes = append(prefixes, netip.MustParsePrefix(s))
		}
		if got := trustOf(prefixes)(netip.MustParseAddr(test.peer)); got != test.want {
			t.Errorf("%q trusts %s: %t; want %t", test.prefixes, test.peer, got, test.want)
		}
	}
}

func TestListenerBelievesTrustedProxies(t *testing.T) {
	f := newFiles(t)
	cfg := f.config()
	cfg.ProxyProtocol = true
	cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	p := openPort(t, cfg)
	for _, test := range proxyHeaders {
		t.Run(test.name, func(t *testing.T) {
			nc := p.dial(t)
			before := p.count("proxy_header")
			io.WriteString(nc, test.header)
			answer, err := askHTTP2(nc)
			if test.wrong {
				if err == nil {
					t.Errorf("answer %q; want none", answer)
				}
				p.await(t, "proxy_header", before+1)
				return
			}
			want := test.source
			if want == "" {
				want = nc.LocalAddr().String()
			}
			if err != nil || !strings.HasPrefix(answer, "http2 clear from "+want+" ") {
				t.Errorf("answer %q, %v; want it from %s", answer, err, want)
			}
		})
	}
	t.Run("http1", func(t *testing.T) {
		nc := p.dial(t)
		io.WriteString(nc, "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n")
		answer, err := askHTTP1(nc)
		if want := "from 192.0.2.1:40000 to 198.51.100.2:443 192.0.2.1:40000"; !strings.HasSuffix(answer, want) {
			t.Errorf("answer %q, %v; want %q", answer, err, want)
		}
	})
	t.Run("tls", func(t *testing.T) {
		nc := p.dial(t)
		io.WriteString(nc, v2(0x21, 0x11, 12, inet4))
		answer, err := askHTTP2(tls.Client(nc, f.client("h2")))
		if want := `http2 tls "h2" from 192.0.2.1:40000`; answer != want {
			t.Errorf("answer %q, %v; want %q", answer, err, want)
		}
	})
	t.Run("in pieces, and with what follows", func(t *testing.T) {
		nc := p.dial(t)
		for _, b := range []byte("PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n")[:20] {
			nc.Write([]byte{b})
		}
		io.WriteString(nc, "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n"[20:]+http2.ClientPreface)
		if answer, err := hear(nc); !strings.HasPrefix(answer, "http2 clear from 192.0.2.1:40000") {
			t.Errorf("answer %q, %v", answer, err)
		}
	})
}

// A header from anybody else is not a header: the address stays the socket's.
func TestListenerBelievesNobodyElse(t *testing.T) {
	f := newFiles(t)
	untrusting := f.config()
	untrusting.ProxyProtocol = true
	untrusting.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for name, cfg := range map[string]Config{"switched off": f.config(), "not trusted": untrusting} {
		t.Run(name, func(t *testing.T) {
			p := openPort(t, cfg)
			for _, header := range []string{"PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n", v2(0x21, 0x11, 12, inet4)} {
				nc := p.dial(t)
				io.WriteString(nc, header)
				if answer, err := askHTTP1(nc); strings.Contains(answer, "http1") || strings.Contains(answer, "192.0.2.1") {
					t.Errorf("answer %q, %v; want that it is no HTTP/1", answer, err)
				}
			}
			nc := p.dial(t)
			answer, err := askHTTP2(nc)
			if want := "http2 clear from " + nc.LocalAddr().String(); !strings.HasPrefix(answer, want) {
				t.Errorf("without a header: answer %q, %v; want %q", answer, err, want)
			}
		})
	}
}

// FuzzProxyHeader compares what we take for a PROXY header with what another
// implementation takes for one. Where we accept, it has to; where it accepts, we
// may be stricter, by the rules that stand here.
func FuzzProxyHeader(f *testing.F) {
	for _, seed := range proxyHeaders {
		f.Add([]byte(seed.header + "rest"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, size, err := parseProxyHeader(b, defaultProxyLength)
		if size > len(b) || size > proxyV2Fixed+defaultProxyLength || size != 0 && err != nil {
			t.Fatalf("size %d of %d bytes, %v", size, len(b), err)
		}
		theirs, rest, theirErr := readProxyHeader(b)
		switch {
		case size > 0 && theirErr != nil:
			if !onlyWeAccept(b) {
				t.Fatalf("accepted %q, and the other does not: %v", b[:size], theirErr)
			}
		case size > 0:
			if rest != len(b)-size {
				t.Fatalf("%d bytes are left of %d; the other leaves %d", len(b)-size, len(b), rest)
			}
			if want := addrsOf(theirs); got != want {
				t.Fatalf("addresses %v; the other has %v", got, want)
			}
		case err == nil && theirErr == nil:
			t.Fatalf("more is wanted of %q, and the other is content", b)
		}
	})
}

func readProxyHeader(b []byte) (h *proxyproto.Header, rest int, err error) {
	r := bufio.NewReaderSize(bytes.NewReader(b), 1<<17)
	h, err = proxyproto.Read(r)
	left, _ := io.Copy(io.Discard, r)
	return h, int(left), err
}

// addrsOf returns what we take from a header: the addresses of TCP, of a
// connection that is proxied.
func addrsOf(h *proxyproto.Header) (addrs proxyAddrs) {
	if h.Command.IsLocal() || !h.TransportProtocol.IsStream() || h.TransportProtocol.IsUnix() {
		return addrs
	}
	return proxyAddrs{source: addrPortOf(h.SourceAddr), destination: addrPortOf(h.DestinationAddr)}
}

// onlyWeAccept reports the headers that the protocol asks us to accept and the
// other implementation refuses: addresses that are not to be looked at (of a
// LOCAL connection), an unspecified family, a family without its protocol.
func onlyWeAccept(b []byte) bool {
	if !bytes.HasPrefix(b, proxyV2) {
		return false
	}
	return b[12] == proxyV2Local || b[13]&0xf == 0 || b[13]>>4 == 0
}
