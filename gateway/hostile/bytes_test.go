package hostile

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2/hpack"

	"sluice/gateway"
)

// token tells whether a byte may stand in a field's name: RFC 9110 section 5.6.2, in
// lower case (RFC 9113 section 8.2.1).
func token(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// inValue tells whether it may stand inside a field's value, RFC 9110 section 5.5.
func inValue(c byte) bool { return c == '\t' || c >= ' ' && c != 0x7f }

// atEdge tells whether it may begin or end one.
func atEdge(c byte) bool { return inValue(c) && c != ' ' && c != '\t' }

func digit(c byte) bool { return '0' <= c && c <= '9' }

// A place is where one byte of any value is put. A message that holds it is refused
// or arrives as it is.
type place struct {
	name  string
	field func(c byte) (name, value string)
	valid func(c byte) bool
}

func valueAt(format string) func(c byte) (string, string) {
	return func(c byte) (string, string) { return "x-place", fmt.Sprintf(format, string([]byte{c})) }
}

var places = []place{
	{"name", func(c byte) (string, string) { return "x-p" + string([]byte{c}) + "q", "v" }, token},
	{"start of a name", func(c byte) (string, string) { return string([]byte{c}) + "x-place", "v" }, token},
	{"value", valueAt("v%sw"), inValue},
	{"start of a value", valueAt("%sw"), atEdge},
	{"end of a value", valueAt("v%s"), atEdge},
	{"length", func(c byte) (string, string) { return "x-length", "1" + string([]byte{c}) + "2" }, inValue},
}

// patient is a gateway that takes more faults of one peer than 256.
var patient = limits(func(c *gateway.Config) { c.Limits.Resets = 1000 })

// Every byte in each place of a request's header, and of its trailers.
func TestB2BytesInARequest(t *testing.T) {
	backend := settle(t)
	r := newRigHere(t, patient, backend)
	seen := make(chan answer, 1)
	backend.become(manners{end: func(p *peer, id uint32) {
		seen <- p.snapshot(id)
		p.write(script{}.headers(id, false, answerHead()).headers(id, true, answerTail()))
	}}, nil)
	for _, pl := range places {
		for _, tail := range []bool{false, true} {
			p := r.dial(manners{})
			for c := range 256 {
				name, value := pl.field(byte(c))
				var a answer
				if tail {
					id := p.open(false, grpcHead(evil, echo))
					p.write(script{}.headers(id, true, block(name, value)))
					a = p.result(id, patience)
				} else {
					a = p.call(append(grpcHead(evil, echo), block(name, value)...), message(1))
				}
				what := fmt.Sprintf("%s, in trailers %v, byte %#02x", pl.name, tail, c)
				if !pl.valid(byte(c)) {
					if !a.wasReset {
						t.Errorf("%s: %v, want a reset", what, &a)
					}
					continue
				}
				if a.status() != "0" {
					t.Errorf("%s: %v, want status 0", what, &a)
					continue
				}
				request := <-seen
				list := request.head
				if tail {
					list = request.tail
				}
				exact(t, what, list, name, value)
			}
			p.close()
		}
	}
	oneLineEach(t, r)
}

func exact(t *testing.T, what string, list []hpack.HeaderField, name, value string) {
	t.Helper()
	for _, f := range list {
		if f.Name == name {
			if f.Value != value {
				t.Errorf("%s: %q arrived as %q", what, value, f.Value)
			}
			return
		}
	}
	t.Errorf("%s: field %q did not arrive", what, name)
}

// oneLineEach checks that nothing which a peer has sent breaks the log.
func oneLineEach(t *testing.T, r *rig) {
	t.Helper()
	for line := range strings.Lines(r.logged.String()) {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("log line that begins with %s", printable(line))
		}
		for _, c := range []byte(strings.TrimSuffix(line, "\n")) {
			if c < ' ' || c == 0x7f {
				t.Errorf("log line with byte %#02x: %s", c, printable(line))
			}
		}
	}
}

// The pseudo-fields of a request: what no server should see does not come through,
// and what comes through is what was sent.
func TestB2BytesInPseudoFields(t *testing.T) {
	backend := settle(t)
	r := newRigHere(t, patient, backend)
	seen := make(chan answer, 1)
	backend.become(manners{end: func(p *peer, id uint32) {
		seen <- p.snapshot(id)
		p.write(script{}.headers(id, false, answerHead()).headers(id, true, answerTail()))
	}}, nil)
	visible := func(c byte) bool { return c > ' ' && c < 0x7f }
	tests := []struct {
		name   string
		head   func(s string) []byte
		pseudo string
		value  string // with %s for the byte
		legal  func(c byte) bool
		passes func(c byte) bool // of the legal ones, those that reach a backend
	}{
		{
			"path", func(s string) []byte { return grpcHead(evil, s) }, ":path", "/hostile.Honest/Ec%sho",
			func(c byte) bool { return visible(c) && c != '#' },
			func(c byte) bool { return strings.IndexByte("%/;?\\\"<>[]^`{|}", c) < 0 },
		},
		{
			"method", func(s string) []byte {
				return block(":method", s, ":scheme", "http", ":authority", evil, ":path", echo, "content-type", "application/grpc")
			}, ":method", "PO%sST",
			func(c byte) bool { return token(c) || 'A' <= c && c <= 'Z' },
			func(c byte) bool { return false },
		},
		{
			"scheme", func(s string) []byte {
				return block(":method", "POST", ":scheme", s, ":authority", evil, ":path", echo, "content-type", "application/grpc")
			}, ":scheme", "ht%stp",
			func(c byte) bool { return false },
			func(c byte) bool { return false },
		},
	}
	for _, test := range tests {
		p := r.dial(manners{})
		for c := range 256 {
			value := fmt.Sprintf(test.value, string([]byte{byte(c)}))
			a := p.call(test.head(value), message(1))
			what := fmt.Sprintf("%s, byte %#02x", test.name, c)
			switch {
			case !test.legal(byte(c)):
				if !a.wasReset {
					t.Errorf("%s: %v, want a reset", what, &a)
				}
			case !test.passes(byte(c)):
				if a.wasReset || a.status() == "0" {
					t.Errorf("%s: %v, want a refusal", what, &a)
				}
			case a.status() != "0":
				t.Errorf("%s: %v, want status 0", what, &a)
			default:
				request := <-seen
				exact(t, what, request.head, test.pseudo, value)
			}
		}
		p.close()
	}
	oneLineEach(t, r)
}

// The same of a response: in its header, its trailers, its message and its status.
func TestB2BytesInAResponse(t *testing.T) {
	message := place{"grpc-message", func(c byte) (string, string) { return "grpc-message", "m" + string([]byte{c}) + "n" }, inValue}
	status := place{":status", func(c byte) (string, string) { return ":status", "2" + string([]byte{c}) + "0" }, digit}
	type test struct {
		place
		tail bool
	}
	tests := []test{{message, true}, {status, false}}
	for _, pl := range places {
		tests = append(tests, test{pl, false}, test{pl, true})
	}
	for _, test := range tests {
		// A backend of its own: it would lose its connection for what the one before did.
		backend := settle(t)
		r := newRigHere(t, patient, backend)
		var put atomic.Pointer[[2]string]
		backend.become(manners{end: func(p *peer, id uint32) {
			head, tail := answerHead(), answerTail()
			name, value := put.Load()[0], put.Load()[1]
			switch {
			case name == ":status":
				head = block(name, value, "content-type", "application/grpc")
			case test.tail:
				tail = append(tail, block(name, value)...)
			default:
				head = append(head, block(name, value)...)
			}
			p.write(script{}.headers(id, false, head).headers(id, true, tail))
		}}, nil)
		p := r.dial(manners{})
		for c := range 256 {
			name, value := test.field(byte(c))
			put.Store(&[2]string{name, value})
			a := p.call(grpcHead(evil, echo), []byte{0, 0, 0, 0, 0})
			what := fmt.Sprintf("%s, in trailers %v, byte %#02x", test.name, test.tail, c)
			if !test.valid(byte(c)) {
				if a.status() != "13" {
					t.Errorf("%s: %v, want status 13", what, &a)
				}
				continue
			}
			if a.status() != "0" {
				t.Errorf("%s: %v, want status 0", what, &a)
				continue
			}
			list := a.head
			if test.tail {
				list = a.tail
			}
			exact(t, what, list, name, value)
		}
		p.close()
		oneLineEach(t, r)
	}
}
