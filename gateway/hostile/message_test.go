package hostile

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// A message that declares 4 GiB and has a byte reserves nothing, in either
// direction; whether it is too long is for its reader to say.
func TestB10DeclaredLength(t *testing.T) {
	backend := settle(t)
	r := newRig(t, nodeConfig{}, backend)
	lie := []byte{0, 0xff, 0xff, 0xff, 0xff, 'x'}
	backend.become(manners{head: func(p *peer, id uint32) {
		p.write(script{}.headers(id, false, answerHead()).data(id, false, lie))
	}}, nil)
	for _, authority := range []string{good, evil} {
		tr := r.begin("messages of 4 GiB, declared to " + authority)
		for range 5 {
			p := r.dial(manners{})
			for range maxAtOnce {
				id := p.open(false, grpcHead(authority, echo))
				p.write(script{}.data(id, false, lie))
			}
			if authority == good {
				// grpc-go refuses them.
				if a := p.result(1, patience); a.status() != "8" {
					t.Errorf("the honest backend: %v, want its own status 8", &a)
				}
			} else if !p.await(patience, func() bool { return p.at(1).size == len(lie) }) {
				t.Error("the backend's bytes did not arrive")
			}
			defer p.close()
		}
		tr.weigh(cost{memory: 16 << 20, cpu: time.Second})
	}
	// Cut off in the middle of what was declared, an RPC is no success.
	p := r.dial(manners{})
	if a := p.call(grpcHead(good, echo), lie); a.status() == "0" || a.status() == "" {
		t.Errorf("a message that ends early: %v, want an error status", &a)
	}
}

func TestB14InformationalFlood(t *testing.T) {
	early := func(more ...string) script {
		return script{}.headers(1, false, append(block(":status", "103"), block(more...)...))
	}
	large := early("link", strings.Repeat("l", 8000))
	list := []flood{
		{name: "1xx", piece: script{}.times(2000, early()), pieces: pick(20, 500), reason: "informational", cost: cut},
		{name: "1xx of 8 KB", piece: script{}.times(8, large), pieces: pick(20, 500), reason: "informational", cost: cut},
		{name: "100 Continue", piece: script{}.times(2000, script{}.headers(1, false, block(":status", "100"))), pieces: pick(20, 500), reason: "informational", cost: cut},
	}
	backends := settleAll(t, len(list))
	r := newRig(t, nodeConfig{}, backends...)
	for i, f := range list {
		f.code = calm
		f.fromBackend(r, backends[i])
	}
}

// endings are the ways in which a backend may end an RPC wrongly, and what the
// caller is told: a status, always, and never that all is well.
var endings = []struct {
	name   string
	answer func(id uint32) script
	want   string // grpc-status
}{
	{"header and end without status", func(id uint32) script { return script{}.headers(id, true, answerHead()) }, "2"},
	{"trailers without status", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).headers(id, true, block("x", "y"))
	}, "2"},
	{"empty trailers", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).headers(id, true, nil)
	}, "2"},
	{"data and end", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).data(id, true, message(3))
	}, "2"},
	{"status of letters", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).headers(id, true, block("grpc-status", "ok"))
	}, "ok"},
	{"status twice", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).headers(id, true, block("grpc-status", "0", "grpc-status", "13"))
	}, "13"},
	{"data after trailers-only", func(id uint32) script {
		return script{}.headers(id, true, answerHead("grpc-status", "0")).data(id, true, message(3))
	}, "0"},
	{"a second header", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).headers(id, false, answerHead())
	}, "13"},
	{"1xx at the end", func(id uint32) script { return script{}.headers(id, true, block(":status", "103")) }, "13"},
	{"101", func(id uint32) script { return script{}.headers(id, false, block(":status", "101")) }, "13"},
	{"no status line", func(id uint32) script { return script{}.headers(id, false, block("content-type", "application/grpc")) }, "13"},
	{"data first", func(id uint32) script { return script{}.data(id, true, message(3)) }, "13"},
	{"status in trailers", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).headers(id, true, block(":status", "200", "grpc-status", "0"))
	}, "13"},
	{"connection field", func(id uint32) script {
		return script{}.headers(id, true, answerHead("grpc-status", "0", "connection", "close"))
	}, "13"},
	{"transfer-encoding", func(id uint32) script {
		return script{}.headers(id, true, answerHead("grpc-status", "0", "transfer-encoding", "chunked"))
	}, "13"},
	{"path in a response", func(id uint32) script {
		return script{}.headers(id, true, append(block(":path", "/"), answerHead("grpc-status", "0")...))
	}, "13"},
	{"content-length too long", func(id uint32) script {
		return script{}.headers(id, false, answerHead("content-length", "100")).headers(id, true, answerTail())
	}, "13"},
	{"content-length too short", func(id uint32) script {
		return script{}.headers(id, false, answerHead("content-length", "1")).data(id, false, message(3)).headers(id, true, answerTail())
	}, "13"},
	{"web page", func(id uint32) script {
		return script{}.headers(id, false, block(":status", "503", "content-type", "text/html")).data(id, true, []byte("<html>"))
	}, "14"},
	{"redirect", func(id uint32) script {
		return script{}.headers(id, true, block(":status", "302", "location", "http://evil.test"))
	}, "2"},
	{"reset", func(id uint32) script { return script{}.reset(id, http2.ErrCodeInternal) }, "13"},
	{"reset after the header", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).reset(id, http2.ErrCodeCancel)
	}, "1"},
	{"reset without error", func(id uint32) script {
		return script{}.headers(id, false, answerHead()).reset(id, http2.ErrCodeNo)
	}, "13"},
	{"reset with a code of its own", func(id uint32) script { return script{}.reset(id, 0xdead) }, "13"},
	{"refused for ever", func(id uint32) script { return script{}.reset(id, http2.ErrCodeRefusedStream) }, "14"},
	{"goaway below it", func(id uint32) script { return script{}.goAway(0, http2.ErrCodeInternal) }, "14"},
	{"the end", func(id uint32) script { return nil }, "14"},
	{"grpc-message of 15 KiB", func(id uint32) script {
		return script{}.headers(id, true, answerHead("grpc-status", "9", "grpc-message", strings.Repeat("m", 15<<10)))
	}, "9"},
	{"grpc-message of 17 KiB", func(id uint32) script {
		return script{}.headers(id, true, answerHead("grpc-status", "9", "grpc-message", strings.Repeat("m", 17<<10)))
	}, "8"},
	{"grpc-message of broken percents", func(id uint32) script {
		return script{}.headers(id, true, answerHead("grpc-status", "9", "grpc-message", "%0%zz%0d%0a"))
	}, "9"},
}

func TestB14WrongEndings(t *testing.T) {
	for _, test := range endings {
		t.Run(test.name, func(t *testing.T) {
			backend := settle(t)
			r := newRigHere(t, nodeConfig{}, backend)
			backend.become(manners{end: func(p *peer, id uint32) {
				if s := test.answer(id); s != nil {
					p.write(s)
				} else {
					p.close()
				}
			}}, nil)
			p := r.dial(manners{})
			a := p.call(grpcHead(evil, echo), message(1))
			if a.status() != test.want {
				t.Errorf("%v, want status %s", &a, test.want)
			}
			if all := a.all("grpc-status"); len(all) > 1 {
				t.Errorf("grpc-status came %d times: %q", len(all), all)
			}
			if again := p.call(grpcHead(good, echo), message(1)); again.status() != "0" {
				t.Errorf("an RPC to another backend after it: %v", &again)
			}
			oneLineEach(t, r)
		})
	}
}

// mischief answers each RPC with the nonce that it came with, unless it refuses it,
// resets it, stops half-way or sends everybody elsewhere.
type mischief struct {
	village *village
	mu      sync.Mutex // guards rng
	rng     *rand.Rand
}

func startMischief(t *testing.T, seed uint64) *mischief {
	m := &mischief{village: settle(t), rng: rand.New(rand.NewPCG(16, seed))}
	settings := []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 50}}
	m.village.become(manners{settings: settings, generous: true, end: m.answer}, nil)
	return m
}

func (m *mischief) draw(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.IntN(n)
}

func (m *mischief) answer(p *peer, id uint32) {
	a := p.snapshot(id)
	p.mu.Lock()
	delete(p.streams, id)
	p.mu.Unlock()
	nonce := a.get("nonce")
	head := script{}.headers(id, false, answerHead("nonce", nonce))
	switch m.draw(40) {
	case 0, 1:
		p.write(script{}.reset(id, http2.ErrCodeRefusedStream))
	case 2:
		p.write(script{}.reset(id, http2.ErrCodeInternal))
	case 3:
		p.write(head.data(id, false, a.data).reset(id, http2.ErrCodeCancel))
	case 4:
		p.write(head) // and nothing more
	case 5:
		p.write(script{}.headers(id, false, block(":status", "103", "nonce", nonce)).append(head).data(id, false, a.data).headers(id, true, answerTail("nonce", nonce)))
	case 6:
		if m.draw(20) == 0 {
			p.write(script{}.goAway(id, http2.ErrCodeNo))
		}
		fallthrough
	case 7, 8:
		time.AfterFunc(time.Duration(m.draw(30))*time.Millisecond, func() {
			p.write(head.data(id, false, a.data).headers(id, true, answerTail("nonce", nonce)))
		})
	default:
		p.write(head.data(id, false, a.data).headers(id, true, answerTail("nonce", nonce)))
	}
}

// Many callers, few connections to the backends, and everything that ends a stream
// early: no RPC ever gets a byte of another's answer.
func TestB16NoCrossTalk(t *testing.T) {
	one, two := startMischief(t, 1), startMischief(t, 2)
	cfg := nodeConfig{Resources: fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: mix}
spec:
  rules: [{backendRefs: [{group: sluice.dev, kind: Backend, name: mix}]}]
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: mix}
spec: {endpoints: [{address: %q}, {address: %q}]}
`, one.village.addr(), two.village.addr())}
	r := newRigHere(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), pick(2*time.Second, time.Hour))
	defer cancel()
	var served, failed, crossed atomic.Int64
	var work sync.WaitGroup
	for i := range 4 {
		cc, err := grpc.NewClient("passthrough:///"+r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(good),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})), grpc.WithDisableRetry())
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		for j := range 20 {
			work.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(i), uint64(j)))
				for n := 0; ctx.Err() == nil; n++ {
					err := nonced(ctx, cc, fmt.Sprintf("%d-%d-%d", i, j, n), rng)
					switch {
					case err == nil:
						served.Add(1)
					case strings.HasPrefix(err.Error(), "crossed"):
						crossed.Add(1)
						t.Error(err)
					case ctx.Err() == nil && !expected[status.Code(err)]:
						t.Errorf("an RPC ended with %v", err)
					default:
						failed.Add(1)
					}
				}
			})
		}
	}
	work.Wait()
	c := r.counters(t)
	t.Logf("%d RPCs answered, %d ended otherwise, %d crossed; %v sent elsewhere, %d connections to the backends",
		served.Load(), failed.Load(), crossed.Load(), c["sluice_rpc_moved_total"], one.village.accepted()+two.village.accepted())
	if served.Load() < 500 || c["sluice_rpc_moved_total"] == 0 {
		t.Errorf("too little happened to prove anything: %d RPCs, %v moved", served.Load(), c["sluice_rpc_moved_total"])
	}
}

// expected are the ends that mischief, and the caller's own impatience, lead to.
var expected = map[codes.Code]bool{
	codes.Canceled: true, codes.DeadlineExceeded: true, codes.Unavailable: true, codes.Internal: true,
}

// nonced makes one RPC, in a manner drawn at random, and checks that all of the
// answer is its own.
func nonced(ctx context.Context, cc *grpc.ClientConn, nonce string, rng *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(20+rng.IntN(200))*time.Millisecond)
	defer cancel()
	if rng.IntN(10) == 0 {
		time.AfterFunc(time.Duration(rng.IntN(10))*time.Millisecond, cancel)
	}
	s, err := cc.NewStream(metadata.AppendToOutgoingContext(ctx, "nonce", nonce), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, echo)
	if err != nil {
		return err
	}
	sent := make([]string, 1+rng.IntN(5))
	for i := range sent {
		p := []byte(strings.Repeat(nonce+" ", 1+rng.IntN(400)))
		sent[i] = string(p)
		if s.SendMsg(&p) != nil {
			break
		}
	}
	s.CloseSend()
	for i := 0; ; i++ {
		var m []byte
		if err := s.RecvMsg(&m); err != nil {
			h, _ := s.Header()
			for _, got := range append(h["nonce"], s.Trailer()["nonce"]...) {
				if got != nonce {
					return fmt.Errorf("crossed: %s got metadata of %s", nonce, got)
				}
			}
			if err.Error() == "EOF" {
				if i != len(sent) || len(s.Trailer()["nonce"]) != 1 {
					return fmt.Errorf("crossed: %s got %d of %d messages and trailers %v", nonce, i, len(sent), s.Trailer())
				}
				return nil
			}
			return err
		}
		if i >= len(sent) || string(m) != sent[i] {
			return fmt.Errorf("crossed: %s got %s as message %d", nonce, printable(string(m)), i)
		}
	}
}
