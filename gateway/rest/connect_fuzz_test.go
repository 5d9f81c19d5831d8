package rest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"sluice/gateway/wire"
)

// The reader finds the messages that are there, refuses the rest, and reserves no more
// than has arrived.
func FuzzEnvelopeReader(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte(enveloped(0, "abc") + enveloped(1, "d") + enveloped(0, "")))
	f.Add([]byte(enveloped(2, "{}")))
	f.Add([]byte("\x00\xff\xff\xff\xff"))
	f.Add([]byte("\x00\x00\x00\x00\x05ab"))
	f.Add([]byte("\x00\x00\x00\x03\xe9"))
	f.Fuzz(func(t *testing.T, body []byte) {
		const limit = 1000
		in := envelopeReader{body: iotest.HalfReader(bytes.NewReader(body)), limit: limit}
		for rest := body; ; {
			data, compressed, err := in.next()
			if cap(in.buf) > 2*growStep {
				t.Fatalf("%d bytes reserved", cap(in.buf))
			}
			p, whole := wire.ParsePrefix(rest)
			switch {
			case len(rest) == 0:
				if err != io.EOF {
					t.Fatalf("at the end: %v, want EOF", err)
				}
				return
			case !whole, p.Flags > 1, p.Length > limit, len(rest) < wire.PrefixLen+int(p.Length):
				var st *wire.Status
				if !errors.As(err, &st) {
					t.Fatalf("%q taken: %q, %v", rest, data, err)
				}
				if want := p.Flags <= 1 && p.Length > limit; want != (st.Code == wire.ResourceExhausted) {
					t.Fatalf("%q: %v", rest, st)
				}
				return
			}
			want := rest[wire.PrefixLen : wire.PrefixLen+int(p.Length)]
			if err != nil || !bytes.Equal(data, want) || compressed != (p.Flags == 1) {
				t.Fatalf("%q: got %q, compressed %t, %v", rest, data, compressed, err)
			}
			rest = rest[wire.PrefixLen+int(p.Length):]
		}
	})
}

// What is taken is what net/url and encoding/base64 make of the query.
func FuzzConnectQuery(f *testing.F) {
	f.Add("connect=v1&encoding=proto&base64=1&message=AAEC_-8")
	f.Add("connect=v1&encoding=json&message=%7B%22a%22%3A1%7D")
	f.Add("encoding=proto&base64=1&message=AAE%3D&compression=gzip")
	f.Add("encoding=json&message=a;b")
	f.Add("encoding=json&encoding=proto&message=%zz")
	f.Fuzz(func(t *testing.T, raw string) {
		q, st := parseConnectQuery(raw)
		if st != nil {
			if q != nil || !strings.HasPrefix(st.Message, "sluice: ") || !st.Gateway {
				t.Fatalf("%q: %v beside %v", raw, q, st)
			}
			return
		}
		values, err := url.ParseQuery(raw)
		if err != nil {
			t.Fatalf("%q taken, %v", raw, err)
		}
		want := []byte(values.Get("message"))
		if values.Get("base64") == "1" {
			if want, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(string(want), "=")); err != nil {
				t.Fatalf("%q taken, %v", raw, err)
			}
		}
		if !bytes.Equal(q.message, want) || q.codec != values.Get("encoding") || q.compression != values.Get("compression") {
			t.Fatalf("%q: got %+v", raw, q)
		}
	})
}
