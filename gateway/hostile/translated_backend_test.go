package hostile

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// legacy leads two authorities to a backend that speaks HTTP/1: one for what is passed
// on as it is, one for RPCs that become requests.
func legacy(addr string) string {
	return fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: plain}
spec:
  hostnames: [plain.test]
  rules: [{backendRefs: [{group: sluice.dev, kind: Backend, name: legacy}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: out}
spec:
  hostnames: [out.test]
  rules: [{backendRefs: [{group: sluice.dev, kind: Backend, name: legacy}]}]
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: legacy}
spec: {protocol: http1, endpoints: [{address: %q}]}
`, addr)
}

// bombOf is a text of what compresses best, compressed: members of 16 MiB, one behind
// the other, which gzip takes for one file.
func bombOf(fill byte, first string, members int) []byte {
	member := func(p []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(p)
		z.Close()
		return b.Bytes()
	}
	return append(member([]byte(first)), bytes.Repeat(member(bytes.Repeat([]byte{fill}, 16<<20)), members)...)
}

// What is compressed counts as what it becomes, and no more of it is made than may be.
func TestTranslatedCompressedBombs(t *testing.T) {
	var answer atomic.Pointer[[]byte]
	front := startRough(t, func(nc net.Conn) {
		io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"+fmt.Sprintf("Content-Length: %d\r\n\r\n", len(*answer.Load())))
		nc.Write(*answer.Load())
	})
	backend := settle(t)
	r := newTranslating(t, nodeConfig{}, legacy(front), backend)
	short, full := bombOf('x', `{"pad":"`, 230), bombOf('x', `{"pad":"`, 640) // 3.6 GiB and 10 GiB
	blank := bombOf(' ', `{"pad":"a"}`, 640)
	answer.Store(&short)
	backend.become(manners{generous: true, end: func(p *peer, id uint32) {
		p.write(script{}.headers(id, false, answerHead("grpc-encoding", "gzip")).data(id, false, framed(1, bombOf('x', "", 3))).headers(id, true, answerTail()))
	}}, nil)
	zipped := []string{"Content-Encoding", "gzip"}
	connect := append([]string{"Connect-Protocol-Version", "1"}, zipped...)
	stream := []string{"Connect-Content-Encoding", "gzip"}
	list := []struct {
		wrongRequest
		authority string
	}{
		{wrongRequest{name: "Connect, 3.6 GiB", contentType: typeJSON, path: echo, body: short, header: connect, codes: "8"}, good},
		{wrongRequest{name: "Connect, 10 GiB", contentType: typeJSON, path: echo, body: full, header: connect, chunked: true, codes: "8"}, good},
		{wrongRequest{name: "Connect stream", contentType: "application/connect+json", path: chat, body: framed(1, short), header: stream, codes: "8"}, good},
		{wrongRequest{name: "REST", contentType: typeJSON, path: "/v1/echo", body: short, header: zipped, codes: "8"}, good},
		{wrongRequest{name: "REST, 10 GiB", contentType: typeJSON, path: "/v1/echo", body: full, header: zipped, chunked: true, codes: "8"}, good},
		{wrongRequest{name: "REST stream", contentType: "application/x-ndjson", path: "/v1/chat", body: full, header: zipped, codes: "8"}, good},
		{wrongRequest{name: "REST stream of blanks", contentType: "application/x-ndjson", path: "/v1/chat", body: blank, header: zipped, codes: "8"}, good},
		{wrongRequest{name: "gRPC-Web for REST", contentType: typeWeb, path: echo, body: framed(1, bombOf(0, "", 200)), header: []string{"Grpc-Encoding", "gzip"}, codes: "8"}, "out.test"},
		{wrongRequest{name: "the answer of a REST backend", contentType: typeWeb, path: echo, body: framed(0, note("x")), codes: "8"}, "out.test"},
		{wrongRequest{name: "the answer to REST", contentType: typeJSON, path: "/v1/echo", body: []byte("{}"), codes: "8 13"}, evil},
		{wrongRequest{name: "the answer to Connect", contentType: typeJSON, path: echo, body: []byte("{}"), header: []string{"Connect-Protocol-Version", "1"}, codes: "8 13"}, evil},
		{wrongRequest{name: "the answer to Connect, wanted", contentType: typeJSON, path: echo, body: []byte("{}"), header: []string{"Connect-Protocol-Version", "1", "Accept-Encoding", "gzip"}, codes: "8 13"}, evil},
	}
	tr := r.begin("bombs")
	for version := 1; version <= 2; version++ {
		c := caller(t, version)
		for _, b := range list {
			question := b.ask()
			question.authority = b.authority
			begin := time.Now()
			a, err := do(c, r.request(t, question))
			if took := time.Since(begin); err != nil || !strings.Contains(" "+b.codes+" ", fmt.Sprintf(" %d ", a.code)) || took > 3*time.Second {
				t.Errorf("HTTP/%d %s: %v, %v after %v, want code %s", version, b.name, a, err, took, b.codes)
			}
		}
		c.CloseIdleConnections()
	}
	r.clean()
	tr.judge(cost{memory: 128 << 20, cpu: 4 * time.Second})
}

// startRough is a backend that reads the header of a request, and does anything.
func startRough(t testing.TB, answer func(nc net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer nc.Close()
				nc.SetDeadline(time.Now().Add(patience))
				req, err := http.ReadRequest(bufio.NewReader(nc))
				if err != nil {
					return
				}
				io.Copy(io.Discard, req.Body)
				answer(nc)
			})
		}
	})
	t.Cleanup(func() { l.Close(); work.Wait() })
	return l.Addr().String()
}

// roughAnswers are what no server of HTTP says.
var roughAnswers = []struct{ name, first, again string }{
	{"nothing", "", ""},
	{"garbage", "\x00\x01\x02SSH-2.0-OpenSSH\r\n", ""},
	{"half a line", "HTTP/1.1 2", ""},
	{"no status", "HTTP/1.1 OK\r\n\r\n", ""},
	{"a status of two digits", "HTTP/1.1 99 No\r\n\r\n", ""},
	{"fields without end", "HTTP/1.1 200 OK\r\n", strings.Repeat("a: b\r\n", 1000)},
	{"a field without end", "HTTP/1.1 200 OK\r\na: ", strings.Repeat("b", 10_000)},
	{"a name without end", "HTTP/1.1 200 OK\r\n", strings.Repeat("n", 10_000)},
	{"1xx without end", "", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", 100)},
	{"a switch of protocols", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", ""},
	{"a length below zero", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ""},
	{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", ""},
	{"an encoding nobody knows", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", ""},
	{"a body cut off", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{", ""},
	{"chunks that are none", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n", ""},
	{"a chunk of all bytes there are", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n{", ""},
	{"trailers without end", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", strings.Repeat("a: b\r\n", 1000)},
}

// A backend that speaks HTTP/1 badly is told of as one: a status in the caller's
// protocol, 502 or an answer that breaks off for plain HTTP.
func TestTranslatedRoughBackends(t *testing.T) {
	var now atomic.Int64
	front := startRough(t, func(nc net.Conn) {
		answer := roughAnswers[now.Load()]
		io.WriteString(nc, answer.first)
		for answer.again != "" {
			if _, err := io.WriteString(nc, answer.again); err != nil {
				return
			}
		}
	})
	r := newTranslating(t, nodeConfig{}, legacy(front))
	tr := r.begin("rough backends")
	c := caller(t, 1)
	for i, answer := range roughAnswers {
		now.Store(int64(i))
		for _, w := range []wrongRequest{
			{contentType: typeWeb, path: echo, body: framed(0, note("x"))},
			{contentType: typeConnect, path: echo, body: note("x"), header: []string{"Connect-Protocol-Version", "1"}},
			{contentType: typeJSON, path: "/v1/echo", body: []byte("{}")},
		} {
			question := w.ask()
			question.authority = "out.test"
			a, err := do(c, r.request(t, question))
			if err != nil || a.code <= 0 || a.code > 16 {
				t.Errorf("%s, asked by %s: %v, %v, want an error", answer.name, w.contentType, a, err)
			}
		}
		a, err := do(c, r.request(t, ask{verb: "GET", authority: "plain.test", path: "/x"}))
		if err == nil && a.http < 500 {
			t.Errorf("%s, passed on: %v, want 502 or an answer that breaks off", answer.name, a)
		}
	}
	c.CloseIdleConnections()
	r.clean()
	tr.judge(cost{memory: 64 << 20, cpu: 2 * time.Second})
}

// falseAnswers are what a gRPC backend says that is no answer to a unary RPC, and what
// those are told for whom it is translated. Who reads messages himself, by gRPC-Web or
// in protobuf, gets them as they are.
var falseAnswers = []struct {
	name   string
	answer func(id uint32) script
	codes  string
	// swallows tells that a reader of messages takes what follows for one of them, and
	// misses the end.
	swallows bool
}{
	{"two messages", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).data(id, false, append(framed(0, note("a")), framed(0, note("b"))...)).headers(id, true, answerTail())
	}, "12", false},
	{"no message", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).headers(id, true, answerTail())
	}, "12", false},
	{"unknown flags", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).data(id, false, framed(0x40, note("a"))).headers(id, true, answerTail())
	}, "13", false},
	{"flags of gRPC-Web's trailers", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).data(id, false, framed(0x80, []byte("grpc-status: 0\r\n"))).headers(id, true, answerTail("x", "y"))
	}, "13", false},
	{"compressed with what was not offered", func(id uint32) script {
		return script{}.headers(id, false, answerHead("grpc-encoding", "br")).data(id, false, framed(1, note("a"))).headers(id, true, answerTail())
	}, "13", false},
	{"compressed with nothing", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).data(id, false, framed(1, note("a"))).headers(id, true, answerTail())
	}, "13", false},
	{"1 GiB declared", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).data(id, false, []byte{0, 0x40, 0, 0, 0, 'x'})
	}, "8", true},
	{"a message cut off", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).data(id, false, framed(0, note("abc"))[:6]).headers(id, true, answerTail())
	}, "13", true},
	{"no protobuf", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).data(id, false, framed(0, []byte{0xff, 0xff})).headers(id, true, answerTail())
	}, "13", false},
	{"no UTF-8", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).data(id, false, framed(0, note("\xff"))).headers(id, true, answerTail())
	}, "13", false},
	{"100,000 trailers", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).data(id, false, framed(0, note("a"))).headers(id, true, append(answerTail(), bytes.Repeat(block("a", "b"), 100_000)...))
	}, "8 13 14", false},
	{"a status out of all numbers", func(id uint32) script { return script{}.headers(id, true, answerHead("grpc-status", "99999999999")) }, "2", false},
	{"details that are none", func(id uint32) script {
		return script{}.headers(id, true, answerHead("grpc-status", "9", "grpc-status-details-bin", "////"))
	}, "9", false},
	{"a message of percents", func(id uint32) script {
		return script{}.headers(id, true, answerHead("grpc-status", "9", "grpc-message", strings.Repeat("%ff%0d%0a<script>", 100)))
	}, "9", false},
	{"a reset", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).reset(id, http2.ErrCodeInternal)
	}, "13", false},
	{"nothing at all", func(uint32) script { return nil }, "4", false},
	{"a header and nothing more", func(id uint32) script { return script{}.headers(id, false, answerHead()) }, "4", false},
}

func TestTranslatedFalseBackends(t *testing.T) {
	var now atomic.Int64
	backend := settle(t)
	backend.become(manners{generous: true, end: func(p *peer, id uint32) {
		if s := falseAnswers[now.Load()].answer(id); s != nil {
			p.write(s)
		}
	}}, nil)
	r := newTranslating(t, nodeConfig{}, "", backend)
	tr := r.begin("false backends")
	callers := []*http.Client{caller(t, 1), caller(t, 2)}
	for i, test := range falseAnswers {
		now.Store(int64(i))
		for version, c := range callers {
			for _, w := range []wrongRequest{
				{contentType: typeWeb, path: echo, body: framed(0, note("x")), header: []string{"Grpc-Timeout", "400m"}},
				{contentType: typeText, path: echo, body: []byte("AAAAAAA="), header: []string{"Grpc-Timeout", "400m"}},
				{contentType: typeConnect, path: echo, body: note("x"), header: []string{"Connect-Timeout-Ms", "400"}},
				{contentType: typeJSON, path: echo, body: []byte("{}"), header: []string{"Connect-Timeout-Ms", "400"}, codes: test.codes},
				{contentType: typeJSON, path: "/v1/echo", body: []byte("{}"), header: []string{"Grpc-Timeout", "400m"}, codes: test.codes},
			} {
				question := w.ask()
				question.authority = evil
				a, err := do(c, r.request(t, question))
				what := fmt.Sprintf("%s, HTTP/%d %s %s", test.name, version+1, w.contentType, w.path)
				switch {
				case err != nil:
					t.Errorf("%s: %v", what, err)
				case w.codes == "" && a.code < 0 && !test.swallows:
					t.Errorf("%s: %v, want any code", what, a)
				case w.codes != "" && !strings.Contains(" "+w.codes+" ", fmt.Sprintf(" %d ", a.code)):
					t.Errorf("%s: %v, want code %s", what, a, w.codes)
				}
			}
		}
	}
	for _, c := range callers {
		c.CloseIdleConnections()
	}
	r.clean()
	tr.judge(cost{memory: 64 << 20, cpu: 3 * time.Second})
}

// A backend whose reflection never answers, or never ends, holds up those alone who need
// to know its methods, and them not for ever.
func TestTranslatedReflectionWithoutEnd(t *testing.T) {
	mute, endless := settle(t), settle(t)
	mute.become(manners{generous: true}, nil)
	endless.become(manners{generous: true, head: func(p *peer, id uint32) {
		p.write(script{}.headers(id, false, answerHead()))
		go func() {
			for p.write(script{}.data(id, false, framed(0, make([]byte, 4000)))) == nil && !p.snapshot(id).wasReset && !p.snapshot(id).lost {
				<-time.After(time.Millisecond) // an attacker that keeps its window
			}
		}()
	}}, nil)
	r := &rig{t: t, honest: startHonest(t, nil)}
	mute.authority, endless.authority = "hostile-0.test", "hostile-1.test"
	r.start(nodeConfig{Resources: resources(map[string]string{good: r.honest.addr, mute.authority: mute.addr(), endless.authority: endless.addr()})}, nil, startApart)
	r.probe = startProbe(t, r.addr)
	tr := r.begin("reflection without end")
	callers := []*http.Client{caller(t, 1), caller(t, 2)}
	var work sync.WaitGroup
	for i := range 60 {
		work.Go(func() {
			question := ask{verb: "GET", authority: fmt.Sprintf("hostile-%d.test", i%2), path: "/v1/anything"}
			if i%3 == 0 {
				question = wrongRequest{contentType: typeJSON, path: "/a.B/C", body: []byte("{}")}.ask()
				question.authority = fmt.Sprintf("hostile-%d.test", i%2)
			}
			begin := time.Now()
			a, err := do(callers[i%2], r.request(t, question))
			if took := time.Since(begin); err != nil || a.http < 400 || took > 8*time.Second || !json.Valid([]byte(a.text)) {
				t.Errorf("%v, %v after %v, want an error in JSON within 5 s", a, err, took)
			}
		})
	}
	work.Wait()
	for _, c := range callers {
		c.CloseIdleConnections()
	}
	r.clean()
	tr.judge(cost{memory: 32 << 20, cpu: 2 * time.Second})
}
