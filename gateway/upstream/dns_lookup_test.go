package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/store"
)

func nobody(netip.AddrPort) bool { return false }

// listing is a finding in one line.
func listing(f finding) string {
	var list []string
	for _, e := range f.found {
		list = append(list, fmt.Sprintf("%s=%d", e.address, e.weight))
	}
	return strings.Join(list, " ")
}

func chain(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("n%d.test. 30 IN CNAME n%d.test.", i, i+1))
	}
	return append(lines, fmt.Sprintf("n%d.test. 30 IN A 10.0.0.1", n))
}

func TestLookUpFindsWhatANameStandsFor(t *testing.T) {
	t.Parallel()
	name := store.DNS{Name: "cart.test", Port: 80}
	srv := store.DNS{SRV: "_grpc._tcp.cart.test"}
	tests := []struct {
		name  string
		dns   store.DNS
		zone  zone
		want  string
		keep  time.Duration
		notes string // part of them
		err   string
	}{
		{
			name: "both families", dns: name, keep: 20 * time.Second,
			zone: zoneOf("cart.test. 30 IN A 10.0.0.2", "cart.test. 20 IN A 10.0.0.1", "cart.test. 60 IN AAAA 2001:db8::1"),
			want: "10.0.0.1:80=1 10.0.0.2:80=1 [2001:db8::1]:80=1",
		},
		{
			name: "one family", dns: name, keep: 30 * time.Second,
			zone: zoneOf("cart.test. 30 IN AAAA 2001:db8::1"), want: "[2001:db8::1]:80=1",
		},
		{
			name: "upper case", dns: store.DNS{Name: "CART.test.", Port: 80}, keep: 30 * time.Second,
			zone: zoneOf("cart.TEST. 30 IN A 10.0.0.1"), want: "10.0.0.1:80=1",
		},
		{
			name: "the same address twice", dns: name, keep: 30 * time.Second,
			zone: zoneOf("cart.test. 30 IN A 10.0.0.1", "cart.test. 31 IN A 10.0.0.1"), want: "10.0.0.1:80=1",
		},
		{
			name: "an alias", dns: name, keep: 5 * time.Second,
			zone: zoneOf("cart.test. 5 IN CNAME other.test.", "other.test. 30 IN A 10.0.0.1"), want: "10.0.0.1:80=1",
		},
		{name: "as many aliases as may be", dns: store.DNS{Name: "n0.test", Port: 80}, zone: zoneOf(chain(maxAliases)...), keep: 30 * time.Second, want: "10.0.0.1:80=1"},
		{name: "one more alias", dns: store.DNS{Name: "n0.test", Port: 80}, zone: zoneOf(chain(maxAliases + 1)...), err: errAliases.Error()},
		{name: "an alias of itself", dns: name, zone: zoneOf("cart.test. 5 IN CNAME cart.test."), err: errAliases.Error()},
		{
			name: "a loop of aliases", dns: name, err: errAliases.Error(),
			zone: zoneOf("cart.test. 5 IN CNAME b.test.", "b.test. 5 IN CNAME cart.test."),
		},
		{name: "no such name", dns: name, zone: zoneOf("other.test. 5 IN A 10.0.0.1"), err: errAbsent.Error()},
		{name: "no such records", dns: name, zone: zoneOf("cart.test. 5 IN TXT x"), err: errEmpty.Error()},
		{name: "an alias of nothing", dns: name, zone: zoneOf("cart.test. 5 IN CNAME b.test."), err: errAbsent.Error()},
		{
			name: "what no backend can be at", dns: name, keep: 30 * time.Second, notes: `"0.0.0.0:80" is no address of a backend: left out`,
			zone: zoneOf("cart.test. 30 IN A 0.0.0.0", "cart.test. 30 IN A 224.0.0.1", "cart.test. 30 IN A 10.0.0.1", "cart.test. 30 IN AAAA ff02::1", "cart.test. 30 IN AAAA ::"),
			want: "10.0.0.1:80=1",
		},
		{name: "a lifetime of none", dns: name, zone: zoneOf("cart.test. 0 IN A 10.0.0.1"), want: "10.0.0.1:80=1", keep: 0},
		{name: "a lifetime of a year", dns: name, zone: zoneOf("cart.test. 31536000 IN A 10.0.0.1"), want: "10.0.0.1:80=1", keep: time.Hour},
		{name: "a lifetime with its highest bit", dns: name, zone: zoneOf("cart.test. 4294967295 IN A 10.0.0.1"), want: "10.0.0.1:80=1", keep: 0},

		{
			name: "services with weights", dns: srv, keep: 10 * time.Second, want: "10.0.0.1:50051=10 10.0.0.2:50052=30",
			zone: zoneOf("_grpc._tcp.cart.test. 10 IN SRV 0 10 50051 a.test.", "_grpc._tcp.cart.test. 10 IN SRV 0 30 50052 b.test.",
				"a.test. 30 IN A 10.0.0.1", "b.test. 30 IN A 10.0.0.2"),
		},
		{
			name: "services of one weight", dns: srv, keep: 10 * time.Second, want: "10.0.0.1:1=1 10.0.0.1:2=1",
			zone: zoneOf("_grpc._tcp.cart.test. 10 IN SRV 0 0 1 a.test.", "_grpc._tcp.cart.test. 10 IN SRV 0 0 2 a.test.", "a.test. 30 IN A 10.0.0.1"),
		},
		{
			name: "a service without weight beside others", dns: srv, keep: 10 * time.Second, want: "10.0.0.1:1=1 10.0.0.1:2=1000",
			zone: zoneOf("_grpc._tcp.cart.test. 10 IN SRV 0 0 1 a.test.", "_grpc._tcp.cart.test. 10 IN SRV 0 10 2 a.test.", "a.test. 30 IN A 10.0.0.1"),
		},
		{
			name: "a target with two addresses", dns: srv, keep: 10 * time.Second, want: "10.0.0.1:1=500 10.0.0.2:1=500 10.0.0.3:1=1000",
			zone: zoneOf("_grpc._tcp.cart.test. 10 IN SRV 0 10 1 a.test.", "_grpc._tcp.cart.test. 10 IN SRV 0 10 1 b.test.",
				"a.test. 30 IN A 10.0.0.1", "a.test. 30 IN A 10.0.0.2", "b.test. 30 IN A 10.0.0.3"),
		},
		{
			name: "the lowest priority only", dns: srv, keep: 10 * time.Second, want: "10.0.0.2:1=1",
			zone: zoneOf("_grpc._tcp.cart.test. 10 IN SRV 2 10 1 a.test.", "_grpc._tcp.cart.test. 10 IN SRV 1 10 1 b.test.",
				"a.test. 30 IN A 10.0.0.1", "b.test. 30 IN A 10.0.0.2"),
		},
		{
			name: "the lowest priority has no addresses", dns: srv, keep: 10 * time.Second, want: "10.0.0.1:1=1", notes: `target "b.test.": no such name`,
			zone: zoneOf("_grpc._tcp.cart.test. 10 IN SRV 2 10 1 a.test.", "_grpc._tcp.cart.test. 10 IN SRV 1 10 1 b.test.", "a.test. 30 IN A 10.0.0.1"),
		},
		{
			name: "a target without addresses", dns: srv, keep: 10 * time.Second, want: "10.0.0.1:1=1", notes: `target "b.test.": the name has no such records`,
			zone: zoneOf("_grpc._tcp.cart.test. 10 IN SRV 0 10 1 a.test.", "_grpc._tcp.cart.test. 10 IN SRV 0 10 1 b.test.", "a.test. 30 IN A 10.0.0.1", "b.test. 30 IN TXT x"),
		},
		{
			name: "a target that is an alias", dns: srv, keep: 10 * time.Second, want: "10.0.0.1:1=1",
			zone: zoneOf("_grpc._tcp.cart.test. 10 IN SRV 0 10 1 a.test.", "a.test. 30 IN CNAME c.test.", "c.test. 30 IN A 10.0.0.1"),
		},
		{name: "no service, in so many words", dns: srv, zone: zoneOf("_grpc._tcp.cart.test. 10 IN SRV 0 0 0 ."), err: "no target of its records has an address"},
		{
			name: "no target is there", dns: srv, err: "no target of its records has an address",
			zone: zoneOf("_grpc._tcp.cart.test. 10 IN SRV 0 0 1 a.test.", "_grpc._tcp.cart.test. 10 IN SRV 1 0 1 b.test."),
		},
		{name: "no such service", dns: srv, zone: zoneOf("cart.test. 10 IN A 10.0.0.1"), err: errAbsent.Error()},
		{name: "no name", dns: store.DNS{Name: strings.Repeat("a", 64) + ".test", Port: 80}, err: `is no name`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f, err := lookUpAt(t, startNames(t, test.zone.serve), test.dns)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("found %q, error %v, want %q", listing(f), err, test.err)
				}
				return
			}
			if err != nil || listing(f) != test.want || f.keep != test.keep {
				t.Errorf("found %q for %v, error %v, want %q for %v", listing(f), f.keep, err, test.want, test.keep)
			}
			if got := strings.Join(f.notes, "; "); !strings.Contains(got, test.notes) || test.notes == "" && got != "" {
				t.Errorf("notes %q, want %q", got, test.notes)
			}
		})
	}
}

// TestLookUpFollowsAliasesWithinAReply, as a server that resolves gives them.
func TestLookUpFollowsAliasesWithinAReply(t *testing.T) {
	t.Parallel()
	all := zoneOf("www.test. 30 IN A 192.0.2.9", "cart.test. 30 IN CNAME b.test.", "c.test. 7 IN A 10.0.0.1", "B.test. 30 IN CNAME c.test.", "b.test. 30 IN A 192.0.2.8")
	s := startNames(t, func(_ bool, m *dns.Msg) []*dns.Msg {
		r := new(dns.Msg)
		r.SetReply(m)
		r.Answer = all
		return []*dns.Msg{r}
	})
	f, err := lookUpAt(t, s, store.DNS{Name: "cart.test", Port: 80})
	if err != nil || listing(f) != "10.0.0.1:80=1" || f.keep != 7*time.Second {
		t.Errorf("found %q for %v, %v: records of names that were not asked for are nobody's business", listing(f), f.keep, err)
	}
}

// lies are replies that must not be believed.
var lies = []struct {
	name string
	tell func(m, good *dns.Msg) *dns.Msg
}{
	{"another id", func(_, good *dns.Msg) *dns.Msg { good.Id++; return good }},
	{"another question", func(_, good *dns.Msg) *dns.Msg { good.Question[0].Name = "other.test."; return good }},
	{"another type", func(_, good *dns.Msg) *dns.Msg { good.Question[0].Qtype = dns.TypeTXT; return good }},
	{"another class", func(_, good *dns.Msg) *dns.Msg { good.Question[0].Qclass = dns.ClassCHAOS; return good }},
	{"no question", func(_, good *dns.Msg) *dns.Msg { good.Question = nil; return good }},
	{"two questions", func(_, good *dns.Msg) *dns.Msg { good.Question = append(good.Question, good.Question[0]); return good }},
	{"a question", func(_, good *dns.Msg) *dns.Msg { good.Response = false; return good }},
	{"another operation", func(_, good *dns.Msg) *dns.Msg { good.Opcode = dns.OpcodeNotify; return good }},
}

// TestLookUpBelievesNoLies: what does not fit the question is passed over, and the true
// answer taken, if one comes.
func TestLookUpBelievesNoLies(t *testing.T) {
	t.Parallel()
	truth := zoneOf("cart.test. 30 IN A 10.0.0.1")
	lie := zoneOf("cart.test. 30 IN A 192.0.2.66", "other.test. 30 IN A 192.0.2.66")
	for _, test := range lies {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var alone atomic.Bool
			s := startNames(t, func(_ bool, m *dns.Msg) []*dns.Msg {
				told := []*dns.Msg{test.tell(m, lie.reply(m))}
				if !alone.Load() {
					told = append(told, truth.reply(m))
				}
				return told
			})
			if f, err := lookUpAt(t, s, store.DNS{Name: "cart.test", Port: 80}); err != nil || listing(f) != "10.0.0.1:80=1" {
				t.Errorf("found %q, %v", listing(f), err)
			}
			alone.Store(true)
			if f, err := lookUpAt(t, s, store.DNS{Name: "cart.test", Port: 80}); err == nil || !strings.Contains(err.Error(), "no answer from") {
				t.Errorf("without the truth: found %q, %v", listing(f), err)
			}
		})
	}
}

// TestLookUpBelievesNoRecordsOfOthers: they come along with the answer to poison whoever
// takes them.
func TestLookUpBelievesNoRecordsOfOthers(t *testing.T) {
	t.Parallel()
	s := startNames(t, func(_ bool, m *dns.Msg) []*dns.Msg {
		r := zoneOf("_grpc._tcp.cart.test. 30 IN SRV 0 1 1 a.test.", "a.test. 30 IN A 10.0.0.1").reply(m)
		for _, rr := range zoneOf("a.test. 30 IN A 192.0.2.66", "a.test. 30 CH A 192.0.2.66", "b.test. 30 IN A 192.0.2.66") {
			r.Extra = append(r.Extra, rr)
			r.Ns = append(r.Ns, rr)
			if rr.Header().Class != dns.ClassINET || rr.Header().Name == "b.test." {
				r.Answer = append(r.Answer, rr)
			}
		}
		return []*dns.Msg{r}
	})
	if f, err := lookUpAt(t, s, store.DNS{SRV: "_grpc._tcp.cart.test"}); err != nil || listing(f) != "10.0.0.1:1=1" {
		t.Errorf("found %q, %v", listing(f), err)
	}
}

func TestLookUpFailsOfServers(t *testing.T) {
	t.Parallel()
	code := func(rcode int) func(bool, *dns.Msg) []*dns.Msg {
		return func(_ bool, m *dns.Msg) []*dns.Msg {
			r := new(dns.Msg)
			r.SetRcode(m, rcode)
			return []*dns.Msg{r}
		}
	}
	truncated := func(r *dns.Msg) *dns.Msg { r.Truncated = true; return r }
	empty := zoneOf("cart.test. 30 IN TXT x")
	tests := []struct {
		name   string
		answer func(tcp bool, m *dns.Msg) []*dns.Msg
		err    string
	}{
		{"it fails", code(dns.RcodeServerFailure), "the server answers SERVFAIL"},
		{"it refuses", code(dns.RcodeRefused), "the server answers REFUSED"},
		{"it knows no such question", code(dns.RcodeNotImplemented), errFormat.Error()},
		{"it is silent", func(bool, *dns.Msg) []*dns.Msg { return nil }, "no answer from 127.0.0.1:"},
		{"it cuts short, and TCP says nothing", func(tcp bool, m *dns.Msg) []*dns.Msg {
			if tcp {
				return nil
			}
			return []*dns.Msg{truncated(empty.reply(m))}
		}, "no answer from 127.0.0.1:"},
		{"it cuts short over TCP, too", func(_ bool, m *dns.Msg) []*dns.Msg {
			r := truncated(zoneOf("cart.test. 30 IN A 192.0.2.66").reply(m))
			return []*dns.Msg{r}
		}, "the reply is cut short"},
		{"it lies over TCP", func(tcp bool, m *dns.Msg) []*dns.Msg {
			r := zoneOf("cart.test. 30 IN A 192.0.2.66").reply(m)
			if r.Truncated = !tcp; tcp {
				r.Id++
			}
			return []*dns.Msg{r}
		}, errForeign.Error()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startNames(t, test.answer)
			begun := time.Now()
			f, err := lookUpAt(t, s, store.DNS{Name: "cart.test", Port: 80})
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("found %q, error %v, want %q", listing(f), err, test.err)
			}
			if d := time.Since(begun); d > 3*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// TestLookUpIsBoundedByItsCaller, who waits for nobody.
func TestLookUpIsBoundedByItsCaller(t *testing.T) {
	t.Parallel()
	s := startNames(t, func(bool, *dns.Msg) []*dns.Msg { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	c := newNameClient()
	if f, err := c.lookUp(ctx, &store.DNS{Name: "cart.test", Port: 80, Server: s.addr}, nil); err == nil || time.Since(begun) > time.Second {
		t.Errorf("found %q, %v, after %v", listing(f), err, time.Since(begun))
	}
}

// TestLookUpTakesLongAnswersOverTCP, and of thousands of addresses the same ones whatever
// their order.
func TestLookUpTakesLongAnswersOverTCP(t *testing.T) {
	t.Parallel()
	const many = 4000
	var all zone
	for i := range many {
		all = append(all, zoneOf(fmt.Sprintf("cart.test. 30 IN A 10.1.%d.%d", i/250, i%250+1))...)
	}
	var turn atomic.Int64
	s := startNames(t, func(tcp bool, m *dns.Msg) []*dns.Msg {
		r := all.reply(m)
		r.Compress = true
		if turn.Add(1)%4 < 2 { // each look-up has three questions
			slices.Reverse(r.Answer)
		}
		if !tcp {
			r.Truncate(maxUDP)
		}
		return []*dns.Msg{r}
	})
	var before string
	for range 2 {
		f, err := lookUpAt(t, s, store.DNS{Name: "cart.test", Port: 80})
		if err != nil || len(f.found) != store.DefaultMaxEndpoints || !strings.Contains(strings.Join(f.notes, ""), "4000 addresses came, the limit is 1000") {
			t.Fatalf("found %d, %q, %v", len(f.found), f.notes, err)
		}
		if before != "" && listing(f) != before {
			t.Error("another order of the records brings other endpoints")
		}
		before = listing(f)
	}
	if got := s.questions(); !strings.Contains(got, "A cart.test. udp, A cart.test. tcp") {
		t.Errorf("asked %s", got)
	}
}

// TestLookUpAsksOldServersAgainWithoutExtensions.
func TestLookUpAsksOldServersAgainWithoutExtensions(t *testing.T) {
	t.Parallel()
	s := startNames(t, func(_ bool, m *dns.Msg) []*dns.Msg {
		if m.IsEdns0() != nil {
			r := new(dns.Msg)
			r.SetRcode(m, dns.RcodeFormatError)
			return []*dns.Msg{r}
		}
		return []*dns.Msg{zoneOf("cart.test. 30 IN A 10.0.0.1").reply(m)}
	})
	if f, err := lookUpAt(t, s, store.DNS{Name: "cart.test", Port: 80}); err != nil || listing(f) != "10.0.0.1:80=1" {
		t.Errorf("found %q, %v", listing(f), err)
	}
}

// failing answers with SERVFAIL to questions that are said to fail.
func failing(z zone, fails func(q dns.Question) bool) func(bool, *dns.Msg) []*dns.Msg {
	return func(_ bool, m *dns.Msg) []*dns.Msg {
		if !fails(m.Question[0]) {
			return []*dns.Msg{z.reply(m)}
		}
		r := new(dns.Msg)
		r.SetRcode(m, dns.RcodeServerFailure)
		return []*dns.Msg{r}
	}
}

// TestLookUpKeepsWhatNobodyAnswersFor: half of an answer must not take the other half away.
func TestLookUpKeepsWhatNobodyAnswersFor(t *testing.T) {
	t.Parallel()
	before := []found{{"10.0.0.1:80", "cart.test", 1}, {"[2001:db8::1]:80", "cart.test", 1}, {"10.0.0.2:2", "b.test", 1}}
	s := startNames(t, failing(zoneOf("cart.test. 30 IN A 10.0.0.9"), func(q dns.Question) bool { return q.Qtype == dns.TypeAAAA }))
	f, err := lookUpAt(t, s, store.DNS{Name: "cart.test", Port: 80}, before...)
	if err != nil || listing(f) != "10.0.0.9:80=1 [2001:db8::1]:80=1" || !strings.Contains(strings.Join(f.notes, ""), "asking for AAAA") {
		t.Errorf("of a family: found %q, %q, %v", listing(f), f.notes, err)
	}
	s = startNames(t, failing(zoneOf("_x._tcp.test. 30 IN SRV 0 1 1 a.test.", "_x._tcp.test. 30 IN SRV 0 1 2 b.test.", "a.test. 30 IN A 10.0.0.1"),
		func(q dns.Question) bool { return q.Name == "b.test." }))
	f, err = lookUpAt(t, s, store.DNS{SRV: "_x._tcp.test"}, before...)
	if err != nil || listing(f) != "10.0.0.1:1=1 10.0.0.2:2=1" || !strings.Contains(strings.Join(f.notes, ""), `target "b.test."`) {
		t.Errorf("of a target: found %q, %q, %v", listing(f), f.notes, err)
	}
}

// TestLookUpAsksTheNextServer, and reads the file that names them each time.
func TestLookUpAsksTheNextServer(t *testing.T) {
	t.Parallel()
	good := startNames(t, zoneOf("cart.shop.test. 30 IN A 10.0.0.1", "cart. 30 IN A 10.0.0.2").serve)
	silent := startNames(t, func(bool, *dns.Msg) []*dns.Msg { return nil })
	c := impatient()
	c.conf = filepath.Join(t.TempDir(), "resolv.conf")
	ports := map[string]string{"192.0.2.1:53": silent.addr, "192.0.2.2:53": good.addr}
	c.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, ports[address])
	}
	look := func() (string, error) {
		f, err := c.lookUp(t.Context(), &store.DNS{Name: "cart", Port: 80}, nil)
		return listing(f), err
	}
	if _, err := look(); err == nil || !strings.Contains(err.Error(), "finding the name servers") {
		t.Errorf("without a file: %v", err)
	}
	for _, test := range []struct{ conf, want, err string }{
		{"search shop.test\n", "", "no name server is named"},
		{"nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch none.test shop.test\n", "10.0.0.1:80=1", ""},
		{"nameserver 192.0.2.2\n", "10.0.0.2:80=1", ""},
		{"nameserver example.com\nnameserver 192.0.2.2\n", "10.0.0.2:80=1", ""},
	} {
		if err := os.WriteFile(c.conf, []byte(test.conf), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := look()
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("with %q: found %q, %v, want %q, %q", test.conf, got, err, test.want, test.err)
		}
	}
}
