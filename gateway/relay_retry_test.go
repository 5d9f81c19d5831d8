package gateway

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/gateway/balance"
	"sluice/store"
)

// onceMore is the policy of most tests.
const onceMore = "retry: {attempts: 1, codes: [UNAVAILABLE], backoff: {base: 1ms, max: 2ms}}"

// unlimited leaves retries to the policy beside it.
const unlimited = "\nretryConstraint: {budget: {percent: 100}, minRetryRate: {count: 1000, interval: 1s}}"

// pairOfScripts are two scripted backends behind one gateway; which of them gets an RPC
// first is not known.
type pairOfScripts struct {
	g      *node
	client *peer
	sent   chan played // requests in order, whoever got them
}

// playPair has each of the two answer by a function that is told how many requests either
// has had before.
func playPair(t *testing.T, spec string, resources []string, answer func(q played, before int)) *pairOfScripts {
	t.Helper()
	first, second := startScript(t, manners{window: 1 << 20}), startScript(t, manners{window: 1 << 20})
	pair := &pairOfScripts{sent: make(chan played, 1000)}
	var before atomic.Int32
	for _, s := range []*scripted{first, second} {
		s.play(t, func(q played) {
			if strings.HasPrefix(q.get(":path"), "/grpc.reflection.") {
				q.says("12", "")
				return
			}
			n := int(before.Add(1)) - 1
			pair.sent <- q
			answer(q, n)
		})
	}
	resources = append(resources, backendAt("a", first.addr, second.addr), routeTo("r", "a"))
	if spec == "" {
		pair.g = startGateway(t, Config{}, resources...)
	} else {
		pair.g = startTreated(t, Config{}, spec, resources...)
	}
	pair.client = connect(t, pair.g.address(), manners{})
	return pair
}

// idle wants nothing of RPCs to be left.
func (p *pairOfScripts) idle(t *testing.T) {
	t.Helper()
	await(t, "nothing to be left", func() bool {
		return p.g.metric(t, "sluice_rpc_open") == 0 && p.g.metric(t, "sluice_endpoint_active") == 0 && p.g.metric(t, "sluice_rpc_kept_bytes") == 0
	})
}

// TestRetrySendsAgain: whatever the first endpoint does that the policy is about, the
// other gets the RPC whole, and is told that it came before.
func TestRetrySendsAgain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		policy string
		fail   func(q played)
		whole  bool // only of a request that is
	}{
		{"trailers only", onceMore, func(q played) { q.says("14", "no") }, false},
		{"header and trailers", onceMore, func(q played) {
			q.p.atOnce(func() {
				q.p.headers(q.id, false, answerHead...)
				q.p.headers(q.id, true, "grpc-status", "14")
			}, func() {})
		}, false},
		{"another code", "retry: {attempts: 1, codes: [ABORTED], backoff: {base: 1ms}}", func(q played) { q.says("10", "no") }, false},
		{"reset", "retry: {attempts: 1, codes: [INTERNAL], backoff: {base: 1ms}}", func(q played) { q.p.reset(q.id, http2.ErrCodeInternal) }, false},
		{"connection lost", onceMore, func(q played) { q.p.abort() }, false},
		{"connection lost after the header", onceMore, func(q played) {
			q.p.atOnce(func() { q.p.headers(q.id, false, answerHead...) }, func() { q.p.nc.Close() })
		}, false},
		{"plain HTTP", onceMore, func(q played) { q.p.headers(q.id, true, ":status", "503", "content-type", "text/html") }, false},
		{"no status", "retry: {attempts: 1, codes: [UNKNOWN], backoff: {base: 1ms}}", func(q played) { q.p.headers(q.id, true, answerHead...) }, false},
		{"no answer in time", "retry: {attempts: 1, codes: [UNAVAILABLE], backoff: {base: 1ms}, perTryTimeout: 50ms}", func(q played) {}, true},
		{"a pause that the backend asks for", onceMore, func(q played) { q.says("14", "no", "grpc-retry-pushback-ms", "30") }, false},
		{"after an interim response", onceMore, func(q played) {
			q.p.headers(q.id, false, ":status", "103")
			q.says("14", "no")
		}, false},
	}
	body := message(pattern(1, 30_000))
	for _, test := range tests {
		for _, ended := range []bool{true, false} {
			if test.whole && !ended {
				continue
			}
			t.Run(fmt.Sprintf("%s, half-closed %v", test.name, ended), func(t *testing.T) {
				t.Parallel()
				pair := playPair(t, test.policy, nil, func(q played, before int) {
					if before > 0 {
						return
					}
					q.p.awaitBytes(q.id, len(body))
					test.fail(q)
				})
				pair.client.request(1, "/shop.Cart/Get", "x-nonce", "one", "grpc-timeout", "10S")
				pair.client.data(1, body, ended)
				first, second := <-pair.sent, <-pair.sent
				if first.p.nc.LocalAddr().String() == second.p.nc.LocalAddr().String() {
					t.Error("the same endpoint got it twice")
				}
				if got := first.get("grpc-previous-rpc-attempts"); got != "" {
					t.Errorf("the first try says grpc-previous-rpc-attempts %q", got)
				}
				if got := second.all("grpc-previous-rpc-attempts"); !slices.Equal(got, []string{"1"}) || second.get("x-nonce") != "one" {
					t.Errorf("the second try is %v", second)
				}
				if second.get("grpc-timeout") == "" {
					t.Error("the second try has no deadline")
				}
				want := body
				if !ended {
					want = append(bytes.Clone(body), "and more"...)
					pair.client.data(1, []byte("and more"), true)
				}
				if got := second.p.awaitBytes(second.id, len(want)); !bytes.Equal(got, want) {
					t.Error("the second try has another body")
				}
				second.p.reply(second.id, []byte("done"))
				if e := pair.client.await("end", func(e event) bool { return e.id == 1 && e.end }); e.get("grpc-status") != "0" {
					t.Errorf("the caller got %v", e)
				}
				pair.idle(t)
			})
		}
	}
}

// TestRetryLeavesAloneWhatItIsNotAbout: the caller gets the first answer, whole.
func TestRetryLeavesAloneWhatItIsNotAbout(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, policy string
		fail         func(q played)
		status       string
		data         int
	}{
		{"another code", onceMore, func(q played) { q.says("5", "no such cart") }, "5", 0},
		{"DATA has gone on", onceMore, func(q played) {
			q.p.headers(q.id, false, answerHead...)
			q.p.data(q.id, message([]byte("part")), false)
			q.p.headers(q.id, true, "grpc-status", "14")
		}, "14", 9},
		{"DATA has gone on, in one write", onceMore, func(q played) {
			q.p.atOnce(func() {
				q.p.headers(q.id, false, answerHead...)
				q.p.data(q.id, message([]byte("part")), false)
				q.p.headers(q.id, true, "grpc-status", "14")
			}, func() {})
		}, "14", 9},
		{"the backend wants none", onceMore, func(q played) { q.says("14", "", "grpc-retry-pushback-ms", "-1") }, "14", 0},
		{"the backend asks for what is no number", onceMore, func(q played) { q.says("14", "", "grpc-retry-pushback-ms", "soon") }, "14", 0},
		{"the backend asks for an hour", onceMore, func(q played) { q.says("14", "", "grpc-retry-pushback-ms", "3600000") }, "14", 0},
		{"the backend asks for more than fits", onceMore, func(q played) { q.says("14", "", "grpc-retry-pushback-ms", "99999999999") }, "14", 0},
		{"no time is left", "retry: {attempts: 1, codes: [UNAVAILABLE]}", func(q played) { q.says("14", "", "grpc-retry-pushback-ms", "10001") }, "14", 0},
		{"no schema says that it may be sent twice", "retry: {attempts: 1, methods: Idempotent}", func(q played) { q.says("14", "") }, "14", 0},
		{"by default", "", func(q played) { q.says("14", "") }, "14", 0},
		{"header, and trailers of another code", onceMore, func(q played) {
			q.p.headers(q.id, false, append(answerHead, "x-head", "1")...)
			q.p.headers(q.id, true, "grpc-status", "5", "x-tail", "1")
		}, "5", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			pair := playPair(t, test.policy, nil, func(q played, before int) { test.fail(q) })
			pair.client.request(1, "/shop.Cart/Get", "grpc-timeout", "10S")
			pair.client.data(1, message(nil), true)
			e := pair.client.await("status", func(e event) bool { return e.id == 1 && e.get("grpc-status") != "" })
			if e.get("grpc-status") != test.status || !e.end {
				t.Errorf("the caller got %v, want %s", e, test.status)
			}
			if e.get("x-tail") != "" && len(pair.client.seen(func(e event) bool { return e.get("x-head") != "" })) != 1 {
				t.Error("the header has not gone before the trailers")
			}
			got := 0
			for _, e := range pair.client.seen(ofType(http2.FrameData, 1)) {
				got += len(e.data)
			}
			if got != test.data {
				t.Errorf("%d bytes came, want %d", got, test.data)
			}
			if len(pair.sent) != 1 {
				t.Errorf("%d endpoints were asked", len(pair.sent))
			}
			pair.idle(t)
		})
	}
}

// TestRetryEndsWithTheLastAnswer, and goes round the endpoints before it comes back to one.
func TestRetryEndsWithTheLastAnswer(t *testing.T) {
	t.Parallel()
	pair := playPair(t, "retry: {attempts: 3, codes: [UNAVAILABLE], backoff: {base: 1ms, max: 2ms}}", nil, func(q played, before int) {
		q.says("14", fmt.Sprint("answer ", before))
	})
	pair.client.request(1, "/shop.Cart/Get", "grpc-previous-rpc-attempts", "2")
	pair.client.data(1, message(nil), true)
	if e := pair.client.awaitHeaders(1); e.get("grpc-message") != "answer 3" || e.get("grpc-status") != "14" {
		t.Errorf("the caller got %v", e)
	}
	var at []string
	for i := range 4 {
		q := <-pair.sent
		at = append(at, q.p.nc.LocalAddr().String())
		want := []string{"2", "3", "4", "5"}[i]
		if got := q.get("grpc-previous-rpc-attempts"); got != want {
			t.Errorf("try %d says %q, want %q with the caller's own", i, got, want)
		}
	}
	if at[0] == at[1] || at[2] == at[3] {
		t.Errorf("tries were at %v: the same twice while another is there", at)
	}
	pair.idle(t)
}

// TestRetryKnowsIdempotentMethods: by default they are sent again once, and no others.
func TestRetryKnowsIdempotentMethods(t *testing.T) {
	t.Parallel()
	const source = `syntax = "proto3";
package shop;
service Cart {
  rpc Get(Ask) returns (Ask) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc Put(Ask) returns (Ask) { option idempotency_level = IDEMPOTENT; }
  rpc Add(Ask) returns (Ask);
}
message Ask {}
`
	pair := playPair(t, "", []string{schemaOf(t, source)}, func(q played, before int) { q.says("14", "") })
	for i, test := range []struct {
		method string
		tries  int
	}{{"Get", 2}, {"Put", 2}, {"Add", 1}, {"Other", 1}} {
		id := uint32(2*i + 1)
		pair.client.request(id, "/shop.Cart/"+test.method)
		pair.client.data(id, message(nil), true)
		if e := pair.client.awaitHeaders(id); e.get("grpc-status") != "14" {
			t.Errorf("%s: %v", test.method, e)
		}
		if len(pair.sent) != test.tries {
			t.Errorf("%s was sent %d times, want %d", test.method, len(pair.sent), test.tries)
		}
		for len(pair.sent) > 0 {
			<-pair.sent
		}
	}
	pair.idle(t)
}

// TestRetryWaitsForTheTrailersOfUnaryAnswers of which a schema tells, however late they
// come; and not for those of streams.
func TestRetryWaitsForTheTrailersOfUnaryAnswers(t *testing.T) {
	t.Parallel()
	const source = `syntax = "proto3";
package shop;
service Cart {
  rpc Get(Ask) returns (Ask);
  rpc Talk(stream Ask) returns (stream Ask);
}
message Ask {}
`
	pair := playPair(t, onceMore, []string{schemaOf(t, source)}, func(q played, before int) {
		q.p.headers(q.id, false, append(answerHead, "x-try", fmt.Sprint(before))...)
		if q.get(":path") == "/shop.Cart/Talk" {
			return
		}
		if before == 0 {
			paused(100 * time.Millisecond)
			q.p.headers(q.id, true, "grpc-status", "14")
			return
		}
		q.p.data(q.id, message([]byte("done")), false)
		q.p.headers(q.id, true, "grpc-status", "0")
	})
	pair.client.request(1, "/shop.Cart/Get")
	pair.client.data(1, message(nil), true)
	if e := pair.client.awaitHeaders(1); e.get("x-try") != "1" {
		t.Errorf("the caller got the header %v, want the second try's", e)
	}
	pair.client.await("end", func(e event) bool { return e.id == 1 && e.end })
	pair.client.request(3, "/shop.Cart/Talk")
	if e := pair.client.awaitHeaders(3); e.get("x-try") != "2" {
		t.Errorf("the stream began with %v", e)
	}
	pair.client.reset(3, http2.ErrCodeCancel)
	pair.idle(t)
}

// TestRetryDelaysNoHandshake: of a method that nobody knows the header goes on within 10 ms.
func TestRetryDelaysNoHandshake(t *testing.T) {
	if raceEnabled {
		t.Skip("measures time")
	}
	b := startAnswering(t, map[string]answer{"Shake": func(b *backend, st grpc.ServerStream) error {
		st.SendHeader(metadata.Pairs("x-hand", "shaken"))
		return hang(b, st)
	}})
	var took [2][]time.Duration
	for i, policy := range []string{onceMore, "timeouts: {streamIdle: 1h}"} {
		g := startTreated(t, Config{}, policy, backendAt("a", b.addr), routeTo("r", "a"))
		cc := dial(t, g.address())
		for range 21 {
			ctx, cancel := context.WithCancel(shortly(t))
			start := time.Now()
			st := stream(t, ctx, cc, "/shop.Cart/Shake")
			if md, err := st.Header(); err != nil || md["x-hand"] == nil {
				t.Fatal(md, err)
			}
			took[i] = append(took[i], time.Since(start))
			cancel()
		}
		slices.Sort(took[i])
	}
	held, plain := took[0][10], took[1][10]
	t.Logf("a handshake takes %v, %v without retries", held, plain)
	if held > plain+10*time.Millisecond {
		t.Errorf("the median handshake took %v, %v without retries", held, plain)
	}
}

// TestRetryEndsInThePause: by the caller's cancel or the gateway's end, nothing is sent.
func TestRetryEndsInThePause(t *testing.T) {
	t.Parallel()
	const policy = "retry: {attempts: 1, codes: [UNAVAILABLE]}"
	for _, test := range []struct {
		name string
		end  func(pair *pairOfScripts)
		want string // grpc-status
	}{
		{"cancel", func(pair *pairOfScripts) { pair.client.reset(1, http2.ErrCodeCancel) }, ""},
		{"connection lost", func(pair *pairOfScripts) { pair.client.close() }, ""},
		{"drain", func(pair *pairOfScripts) { pair.g.cancel() }, "14"},
		{"body that is not to be kept", func(pair *pairOfScripts) {
			pair.client.data(1, make([]byte, 60_000), false)
		}, "14"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			pair := playPair(t, policy, nil, func(q played, before int) {
				q.p.awaitBytes(q.id, 40_000)
				q.says("14", "the first", "grpc-retry-pushback-ms", "20000")
			})
			pair.client.request(1, "/shop.Cart/Get")
			pair.client.data(1, make([]byte, 40_000), false)
			pair.client.await("window", ofType(http2.FrameWindowUpdate, 1))
			q := <-pair.sent
			q.p.awaitReset(q.id) // given up, as the request goes on
			await(t, "the pause", func() bool { return pair.g.metric(t, "sluice_endpoint_active") == 0 })
			if got := pair.g.metric(t, "sluice_rpc_open"); got != 1 {
				t.Errorf("%v RPCs are open", got)
			}
			test.end(pair)
			if test.want != "" {
				if e := pair.client.awaitHeaders(1); e.get("grpc-status") != test.want {
					t.Errorf("the caller got %v", e)
				}
			}
			pair.idle(t)
			if len(pair.sent) != 0 {
				t.Error("it was sent again")
			}
		})
	}
}

// TestRetryMeetsTheDeadline: a try that began in time is over when the RPC is.
func TestRetryMeetsTheDeadline(t *testing.T) {
	t.Parallel()
	pair := playPair(t, "retry: {attempts: 5, codes: [UNAVAILABLE], backoff: {base: 1ms, max: 1ms}}", nil, func(q played, before int) {
		if before == 0 {
			q.says("14", "")
		}
	})
	start := time.Now()
	pair.client.request(1, "/shop.Cart/Get", "grpc-timeout", "150m")
	pair.client.data(1, message(nil), true)
	if e := pair.client.awaitHeaders(1); e.get("grpc-status") != "4" || e.at.Sub(start) < 150*time.Millisecond {
		t.Errorf("the caller got %v after %v", e, e.at.Sub(start))
	}
	<-pair.sent
	q := <-pair.sent
	q.p.awaitReset(q.id)
	pair.idle(t)
}

// triedFor bounds each try.
const triedFor = "retry: {attempts: 1, codes: [UNAVAILABLE], backoff: {base: 1ms, max: 2ms}, perTryTimeout: 50ms}"

// TestRetryTimesATryFromTheWholeRequest: what the caller takes to send it is no fault of
// an endpoint's.
func TestRetryTimesATryFromTheWholeRequest(t *testing.T) {
	t.Parallel()
	for name, early := range map[string][]byte{"no message": nil, "a part of it": message(pattern(1, 100))[:50]} {
		for _, schema := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, schema %v", name, schema), func(t *testing.T) {
				t.Parallel()
				var resources []string
				if schema {
					resources = append(resources, schemaOf(t, timedProto))
				}
				pair := playPair(t, triedFor, resources, func(q played, before int) {})
				pair.client.request(1, "/shop.Cart/Hang")
				if early != nil {
					pair.client.data(1, early, false)
				}
				first := <-pair.sent
				paused(200 * time.Millisecond)
				if len(pair.sent) != 0 {
					t.Error("it was sent again before it was whole")
				}
				body := message(pattern(1, 100))
				start := time.Now()
				pair.client.data(1, body[len(early):], true)
				first.p.awaitReset(first.id)
				if took := time.Since(start); took < 45*time.Millisecond {
					t.Errorf("the whole request had %v", took)
				}
				second := <-pair.sent
				if got := second.p.awaitBytes(second.id, len(body)); !bytes.Equal(got, body) {
					t.Error("the second try has another body")
				}
				second.p.reply(second.id, nil)
				if e := pair.client.await("end", func(e event) bool { return e.id == 1 && e.end }); e.get("grpc-status") != "0" {
					t.Errorf("the caller got %v", e)
				}
				pair.idle(t)
			})
		}
	}
}

// TestRetryCutsNoStreams that are silent for longer than a try may be.
func TestRetryCutsNoStreams(t *testing.T) {
	t.Parallel()
	two := append(message(pattern(1, 100)), message(nil)...)
	for _, test := range []struct {
		name, path string
		schema     bool
		body       []byte
	}{
		{"the schema says so", "/shop.Cart/Echo", true, message(nil)},
		{"two messages say so", "/shop.Cart/Echo", false, two},
		{"too many bytes to count them", "/shop.Cart/Echo", false, make([]byte, maxKept+1)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var resources []string
			if test.schema {
				resources = append(resources, schemaOf(t, timedProto))
			}
			pair := playPair(t, triedFor, resources, func(q played, before int) {
				q.p.awaitBytes(q.id, len(test.body))
				paused(200 * time.Millisecond)
				q.p.reply(q.id, nil)
			})
			pair.client.request(1, test.path)
			early, late := test.body[:len(test.body)*3/4], test.body[len(test.body)*3/4:]
			pair.client.data(1, early, false)
			if len(early) > 1000 {
				pair.client.await("window", ofType(http2.FrameWindowUpdate, 1))
			}
			pair.client.data(1, late, true)
			if e := pair.client.await("end", func(e event) bool { return e.id == 1 && e.end }); e.get("grpc-status") != "0" {
				t.Errorf("the caller got %v", e)
			}
			if len(pair.sent) != 1 {
				t.Errorf("it was sent %d times", len(pair.sent))
			}
			pair.idle(t)
		})
	}
}

// TestRetryOutlivesAMoveToNowhere: the second try is refused while nobody may be picked any
// more. The caller gets the first try's answer.
func TestRetryOutlivesAMoveToNowhere(t *testing.T) {
	t.Parallel()
	first, second := startScript(t, manners{}), startScript(t, manners{})
	const spec = "loadBalancing: {panicThreshold: 0}\noutlierDetection: {disabled: true}\n"
	g := startTreated(t, Config{}, onceMore, backendWith("a", spec, first.addr, second.addr), routeTo("r", "a"))
	sent := make(chan played, 9)
	for _, s := range []*scripted{first, second} {
		s.play(t, func(q played) {
			if q.get("grpc-previous-rpc-attempts") == "" {
				q.says("14", "the first")
				return
			}
			b := g.pool.Backend("default/a")
			for _, e := range b.Endpoints {
				e.SetCondition(balance.Unhealthy, true)
			}
			b.Refresh()
			sent <- q
			q.p.reset(q.id, http2.ErrCodeRefusedStream)
		})
	}
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get")
	client.data(1, message(nil), true)
	<-sent
	if e := client.awaitHeaders(1); e.get("grpc-status") != "14" || e.get("grpc-message") != "the first" {
		t.Errorf("the caller got %v", e)
	}
	if len(sent) != 0 {
		t.Error("it was sent again to who may not be picked")
	}
}

// TestRetryKeepsNoMoreThanItMay: an upload beyond 64 KiB gets the answer that there is.
func TestRetryKeepsNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	body := pattern(1, 100_000)
	pair := playPair(t, onceMore, nil, func(q played, before int) {
		q.p.awaitBytes(q.id, len(body))
		q.says("14", "mine")
	})
	pair.client.request(1, "/shop.Cart/Put")
	pair.client.data(1, body[:50_000], false)
	pair.client.await("window", ofType(http2.FrameWindowUpdate, 1))
	pair.client.data(1, body[50_000:], true)
	if e := pair.client.awaitHeaders(1); e.get("grpc-message") != "mine" {
		t.Errorf("the caller got %v", e)
	}
	if len(pair.sent) != 1 {
		t.Errorf("%d endpoints were asked", len(pair.sent))
	}
	pair.idle(t)
}

// TestRetryOutlivesABackend: one of five goes away in the midst of RPCs.
func TestRetryOutlivesABackend(t *testing.T) {
	t.Parallel()
	var backends []*backend
	var addrs []string
	for i := range 5 {
		b := startBackend(t, fmt.Sprint(i))
		backends, addrs = append(backends, b), append(addrs, b.addr)
	}
	g := startTreated(t, Config{}, onceMore+unlimited, backendAt("a", addrs...), routeTo("r", "a"))
	cc := dial(t, g.address())
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		paused(200 * time.Millisecond)
		backends[2].grpc.Stop()
		paused(200 * time.Millisecond)
	}()
	var made, failed atomic.Int64
	each(16, 16, func(int) {
		for {
			select {
			case <-stop:
				return
			default:
			}
			made.Add(1)
			if _, err := invoke(shortly(t), cc, "/shop.Cart/Echo", pattern(1, 500)); err != nil {
				failed.Add(1)
				t.Errorf("%v", err)
			}
		}
	})
	t.Logf("%d RPCs, %d failed", made.Load(), failed.Load())
}

// TestRetryOfGRPCServers: what grpc-go's servers send when they fail with and without a
// header of their own.
func TestRetryOfGRPCServers(t *testing.T) {
	t.Parallel()
	for _, early := range []bool{false, true} {
		var calls atomic.Int32
		fails := map[string]answer{"Flaky": func(_ *backend, st grpc.ServerStream) error {
			if early {
				st.SetHeader(metadata.Pairs("x-head", "1"))
			}
			if calls.Add(1)%2 == 1 {
				return status.Error(codes.Unavailable, "not now")
			}
			return echo(nil, st)
		}}
		a, b := startAnswering(t, fails), startAnswering(t, fails)
		g := startTreated(t, Config{}, onceMore+unlimited, backendAt("a", a.addr, b.addr), routeTo("r", "a"))
		cc := dial(t, g.address())
		for i := range 50 {
			m := pattern(i, 100)
			if got := mustCall(t, cc, "/shop.Cart/Flaky", m); !bytes.Equal(got, m) {
				t.Fatalf("answered %q", got)
			}
		}
		if got := a.served.Load() + b.served.Load(); got != 100 {
			t.Errorf("early header %v: 50 RPCs were %d tries, want 100", early, got)
		}
		if a.served.Load() != 50 {
			t.Errorf("early header %v: %d tries of 100 at one endpoint: each RPC was to be at both", early, a.served.Load())
		}
	}
}

// TestRetryKeepsToItsBudget: when everything fails, no more is sent again than a share.
func TestRetryKeepsToItsBudget(t *testing.T) {
	t.Parallel()
	b := startAnswering(t, map[string]answer{"Fail": func(*backend, grpc.ServerStream) error {
		return status.Error(codes.Unavailable, "not now")
	}})
	const calls = 300
	g := startTreated(t, Config{}, "retry: {attempts: 3, codes: [UNAVAILABLE], backoff: {base: 1ms, max: 2ms}}", backendWith("a", "outlierDetection: {disabled: true}", b.addr), routeTo("r", "a"))
	cc := dial(t, g.address())
	start := time.Now()
	each(calls, 10, func(int) {
		_, err := invoke(shortly(t), cc, "/shop.Cart/Fail", nil)
		wantStatus(t, "failing", err, codes.Unavailable, "not now")
	})
	most := calls*12/10 + 10*int(1+time.Since(start)/time.Second)
	if got := int(b.served.Load()) - 1; got > most || got <= calls { // one asked for the schema
		t.Errorf("%d RPCs were %d tries, want %d at most", calls, got, most)
	}
}

// TestRetryPauses: each a random part of twice as much as the one before, up to a limit;
// or what the backend asks for.
func TestRetryPauses(t *testing.T) {
	const day = store.Duration(24 * time.Hour)
	tests := []struct {
		base, max store.Duration
		tries     int
		limit     time.Duration
	}{
		{store.Duration(10 * time.Millisecond), store.Duration(time.Second), 0, 10 * time.Millisecond},
		{store.Duration(10 * time.Millisecond), store.Duration(time.Second), 3, 80 * time.Millisecond},
		{store.Duration(10 * time.Millisecond), store.Duration(time.Second), 9, time.Second},
		{store.Duration(time.Second), store.Duration(10 * time.Millisecond), 0, 10 * time.Millisecond},
		{day, day, 1000, 24 * time.Hour},
		{0, store.Duration(time.Second), 5, 0},
	}
	for _, test := range tests {
		p := newRetries(&store.RetryPolicy{Attempts: 1, Backoff: store.Backoff{Base: test.base, Max: test.max}})
		var longest time.Duration
		for range 1000 {
			d, ok := p.pause(test.tries, &setback{})
			if longest = max(longest, d); !ok || d < 0 || d > test.limit {
				t.Fatalf("%+v: %v, %v", test, d, ok)
			}
		}
		if longest < test.limit*9/10 {
			t.Errorf("%+v: the longest of 1,000 pauses is %v", test, longest)
		}
	}
	for pushback, want := range map[string]time.Duration{
		"0": 0, "25": 25 * time.Millisecond, "30000": 30 * time.Second,
		"30001": -1, "-1": -1, "": -1, "1.5": -1, "0x10": -1, " 1": -1, "9223372036854775807": -1,
	} {
		d, ok := defaultRetries.pause(0, &setback{pushed: true, pushback: pushback})
		if ok != (want >= 0) || ok && d != want {
			t.Errorf("pushback %q: %v, %v", pushback, d, ok)
		}
	}
}
