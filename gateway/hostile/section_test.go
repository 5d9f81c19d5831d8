package hostile

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/gateway"
)

// bomb is a header block that puts one entry in the table and refers to it n
// times, a byte each.
func bomb(n int, name, value string) []byte {
	b := field(nil, remembered, name, value)
	for range n {
		b = append(b, 0x80|62) // the newest entry of the table
	}
	return b
}

// sections are header sections that unfold to more than they are.
var sections = []struct {
	name string
	tail []byte // behind an honest head
}{
	{"large entry, 1000 times", bomb(1000, "x", strings.Repeat("v", 4000))},
	{"4000 small fields", bomb(4000, "x-small", "1")},
	{"4000 cookie crumbs", bomb(4000, "cookie", "a=1")},
	{"4000 empty values", bomb(4000, "x", "")},
	{"45 MB", bomb(11_000, "x", strings.Repeat("v", 4000))},
}

func TestA09HPACKBomb(t *testing.T) {
	var list []flood
	for _, s := range sections {
		list = append(list, flood{name: s.name, piece: script{}.headers(3, true, append(grpcHead(good, hold), s.tail...)), pieces: 1, reason: "header_bomb", cost: cut})
	}
	backends := settleAll(t, len(list))
	r := newRig(t, nodeConfig{}, backends...)
	for i, f := range list {
		f.code = calm
		f.fromClient(r)
		f.piece = script{}.headers(1, true, append(answerHead(), sections[i].tail...))
		f.fromBackend(r, backends[i])
	}
}

// Below four times the limit it costs the RPC and not the connection, and what is
// beyond the limit is not kept.
func TestA09LargeSectionEndsTheRPC(t *testing.T) {
	backend := settle(t)
	r := newRig(t, nodeConfig{}, backend)
	backend.become(manners{end: func(p *peer, id uint32) {
		p.write(script{}.headers(id, false, answerHead()).headers(id, true, append(answerTail(), bomb(300, "x-many", "1")...)))
	}}, nil)
	tr := r.begin("large sections")
	p := r.dial(manners{})
	for _, test := range []struct {
		name, authority string
		more            []byte
	}{
		{"request of 14 large entries", good, bomb(14, "x", strings.Repeat("v", 4000))},
		{"request of 300 fields", good, bomb(300, "x", "1")},
		{"response of 300 fields", evil, nil},
	} {
		for range 100 {
			if a := p.call(append(grpcHead(test.authority, echo), test.more...), message(1)); a.status() != "8" {
				t.Fatalf("%s: %v, want status 8", test.name, &a)
			}
		}
	}
	tr.expect(outcome("request_headers"), 200)
	tr.expect(outcome("response_headers"), 100)
	p.close()
	tr.judge(cost{memory: 16 << 20, cpu: time.Second})
}

// The bomb of 2026: fields that are within the limit, on streams whose responses
// wait for ever.
func TestA10StalledStreams(t *testing.T) {
	cfg := limits(func(c *gateway.Config) { c.Limits.StreamStall = pick(2*time.Second, 5*time.Minute) })
	r := newRig(t, cfg)
	tr := r.begin("stalled streams that are dripped on")
	p := r.dial(manners{settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}})
	head := append(grpcHead(good, blob, "blob-bytes", "1000000"), bomb(89, "cookie", strings.Repeat("c", 120))...)
	for range maxAtOnce {
		p.open(true, head)
	}
	var drip script
	for i := range uint32(maxAtOnce) {
		drip = drip.windowUpdate(2*i+1, 1)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	end := time.After(pick(8*time.Second, 10*time.Minute))
	stalled := func() float64 {
		return tr.counters(t)[rejected("downstream", "stalled")] - tr.counted[rejected("downstream", "stalled")]
	}
	for gone := false; !gone && stalled() < maxAtOnce; {
		select {
		case <-tick.C:
			gone = p.write(append(drip, script{}.windowUpdate(0, 1000)...)) != nil
		case <-end:
			gone = true
		}
	}
	tr.expect(rejected("downstream", "stalled"), maxAtOnce)
	p.close()
	tr.judge(cost{})
}

// A table of 4 GiB is offered, and 4 KiB are used.
func TestA11EncoderTable(t *testing.T) {
	r := newRig(t, nodeConfig{})
	for _, offered := range []uint32{1<<32 - 1, 1 << 20, 4096, 100, 0} {
		tr := r.begin(fmt.Sprintf("encoder table of %d", offered))
		p := r.dial(manners{settings: []http2.Setting{{ID: http2.SettingHeaderTableSize, Val: offered}}})
		// The peer's decoder refuses an index, or a size, beyond 4 KiB and beyond what
		// it has offered.
		p.await(patience, func() bool { return p.frames[http2.FrameSettings] >= 2 })
		p.mu.Lock()
		p.dec.SetAllowedMaxDynamicTableSize(min(offered, 4096))
		p.mu.Unlock()
		for i := range pick(300, 10_000) {
			var more []string
			for j := range 10 {
				more = append(more, fmt.Sprintf("echo-%d-%d", i, j), fmt.Sprintf("value %d", i))
			}
			a := p.call(grpcHead(good, echo, more...), message(1))
			if a.status() != "0" || a.get(more[len(more)-2]) != more[len(more)-1] || a.get("undecodable") != "" {
				t.Fatalf("table of %d: RPC %d: %v %q", offered, i, &a, a.get("undecodable"))
			}
		}
		p.close()
		tr.judge(cost{memory: 16 << 20, cpu: 10 * time.Second})
	}
}

func TestA12EmptyNames(t *testing.T) {
	names := []struct {
		name  string
		block []byte
	}{
		{"plain", []byte{0x00, 0x00, 0x01, 'v'}},
		{"huffman", []byte{0x00, 0x80, 0x01, 'v'}},
		{"kept", []byte{0x40, 0x00, 0x01, 'v'}},
	}
	backends := settleAll(t, len(names))
	r := newRig(t, nodeConfig{}, backends...)
	for i, test := range names {
		tr := r.begin("empty name " + test.name)
		p := r.dial(manners{})
		for range 150 {
			a := p.call(append(grpcHead(good, echo), test.block...), message(1))
			if !a.wasReset || a.code != http2.ErrCodeProtocol {
				t.Fatalf("%s: %v, want a reset with PROTOCOL_ERROR", test.name, &a)
			}
		}
		p.close()
		backends[i].become(manners{end: func(p *peer, id uint32) {
			p.write(script{}.headers(id, false, answerHead()).headers(id, true, append(answerTail(), test.block...)))
		}}, nil)
		p = r.dial(manners{})
		for range 150 {
			if a := p.call(grpcHead(backends[i].authority, echo), message(1)); a.status() != "13" {
				t.Fatalf("%s from a backend: %v, want status 13", test.name, &a)
			}
		}
		p.close()
		tr.expect(rejected("downstream", "malformed"), 150)
		tr.expect(rejected("upstream", "malformed"), 150)
		tr.judge(cost{memory: 8 << 20, cpu: time.Second})
	}
}

// isNever looks a field up, and whether it may enter no table.
func isNever(list []hpack.HeaderField, name string) (never, found bool) {
	for _, f := range list {
		if f.Name == name {
			return f.Sensitive, true
		}
	}
	return false, false
}

// RFC 7541 section 7.1.3: what one hop must not index, no hop may.
func TestB15NeverIndexedIsCarried(t *testing.T) {
	backend := settle(t)
	r := newRigHere(t, nodeConfig{}, backend)
	backend.become(manners{end: func(p *peer, id uint32) {
		h := field(answerHead(), neverTabled, "set-cookie", "secret")
		tail := field(answerTail(), neverTabled, "x-secret", "secret")
		p.write(script{}.headers(id, false, h).headers(id, true, tail))
	}}, nil)
	p := r.dial(manners{})
	// Twice: the second time an index might be used.
	for range 2 {
		a := p.call(field(field(grpcHead(evil, echo), neverTabled, "authorization", "Bearer secret"), neverTabled, "x-token-bin", "c2VjcmV0"), message(1))
		if a.status() != "0" {
			t.Fatalf("the RPC: %v", &a)
		}
		for _, name := range []string{"set-cookie", "x-secret"} {
			if never, found := isNever(append(a.head, a.tail...), name); !found || !never {
				t.Errorf("response field %s: found %v, never indexed %v", name, found, never)
			}
		}
	}
	up := backend.last()
	for n := range 2 {
		id, _ := up.stream(n)
		request := up.snapshot(id)
		for _, name := range []string{"authorization", "x-token-bin"} {
			if never, found := isNever(request.head, name); !found || !never {
				t.Errorf("request %d, field %s: found %v, never indexed %v", n, name, found, never)
			}
		}
		if never, found := isNever(request.head, "content-type"); !found || never {
			t.Errorf("request %d, content-type: found %v, never indexed %v, want true and false", n, found, never)
		}
	}
}
