package gateway

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
)

// hedgedProto has methods that may be hedged, and some that may not.
const hedgedProto = `syntax = "proto3";
package shop;
service Cart {
  rpc Get(Ask) returns (Ask) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc Add(Ask) returns (Ask);
  rpc Watch(Ask) returns (stream Ask) { option idempotency_level = NO_SIDE_EFFECTS; }
}
message Ask {}
`

const hedgedAfter = "hedging: {attempts: 1, delay: 30ms}"

// TestHedgeAnswersByWhoIsFirst: the other is cancelled.
func TestHedgeAnswersByWhoIsFirst(t *testing.T) {
	t.Parallel()
	body := message(pattern(1, 20_000))
	for _, winner := range []int{0, 1} {
		for _, headerFirst := range []bool{false, true} {
			t.Run(fmt.Sprintf("try %d, headers first %v", winner, headerFirst), func(t *testing.T) {
				t.Parallel()
				pair := playPair(t, hedgedAfter, []string{schemaOf(t, hedgedProto)}, func(q played, before int) {
					if headerFirst { // of both: the message decides
						q.p.headers(q.id, false, append(answerHead, "x-try", fmt.Sprint(before))...)
					}
				})
				start := time.Now()
				pair.client.request(1, "/shop.Cart/Get")
				pair.client.data(1, body, false)
				tries := []played{<-pair.sent, <-pair.sent}
				if tries[0].get("grpc-previous-rpc-attempts") != "" { // they come by two connections
					slices.Reverse(tries)
				}
				if took := time.Since(start); took < 20*time.Millisecond {
					t.Errorf("the second try came after %v", took)
				}
				if a, b := tries[0].p.nc.LocalAddr().String(), tries[1].p.nc.LocalAddr().String(); a == b {
					t.Error("both tries are at one endpoint")
				}
				pair.client.data(1, []byte("end"), true)
				for i, q := range tries {
					if got := q.p.awaitBytes(q.id, len(body)+3); !bytes.Equal(got, append(bytes.Clone(body), "end"...)) {
						t.Errorf("try %d got another body", i)
					}
					if got := q.get("grpc-previous-rpc-attempts"); got != []string{"", "1"}[i] {
						t.Errorf("try %d says %q", i, got)
					}
				}
				q, loser := tries[winner], tries[1-winner]
				if !headerFirst {
					q.p.headers(q.id, false, append(answerHead, "x-try", fmt.Sprint(winner))...)
				}
				q.p.data(q.id, message([]byte("done")), false)
				q.p.headers(q.id, true, "grpc-status", "0")
				if e := pair.client.awaitHeaders(1); e.get("x-try") != fmt.Sprint(winner) {
					t.Errorf("the caller got %v", e)
				}
				if e := pair.client.await("end", func(e event) bool { return e.id == 1 && e.end }); e.get("grpc-status") != "0" {
					t.Errorf("the caller got %v", e)
				}
				if e := loser.p.awaitReset(loser.id); e.code != http2.ErrCodeCancel {
					t.Errorf("the loser got %v", e)
				}
				pair.idle(t)
			})
		}
	}
}

// TestHedgeFollowsAFailureAtOnce, and the last failure is the caller's.
func TestHedgeFollowsAFailureAtOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		answer func(q played, before int)
		tries  int
		status string
	}{
		{"the first fails", func(q played, before int) {
			if before == 0 {
				q.says("14", "")
			} else {
				q.p.reply(q.id, nil)
			}
		}, 2, "0"},
		{"both fail", func(q played, before int) { q.says("14", "") }, 2, "14"},
		{"both connections end", func(q played, before int) { q.p.abort() }, 2, "14"},
		{"what is no good anywhere ends it", func(q played, before int) { q.says("5", "") }, 1, "5"},
		{"the backend wants none", func(q played, before int) { q.says("14", "", "grpc-retry-pushback-ms", "-1") }, 1, "14"},
		{"the backend wants it later", func(q played, before int) {
			if before == 0 {
				q.says("14", "", "grpc-retry-pushback-ms", "20")
			} else {
				q.p.reply(q.id, nil)
			}
		}, 2, "0"},
		{"the backend wants it later than there is time", func(q played, before int) {
			q.says("14", "", "grpc-retry-pushback-ms", "10001")
		}, 1, "14"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			pair := playPair(t, "hedging: {attempts: 1, delay: 10s}", []string{schemaOf(t, hedgedProto)}, test.answer)
			pair.client.request(1, "/shop.Cart/Get", "grpc-timeout", "5S")
			pair.client.data(1, message(nil), true)
			if e := pair.client.await("end", func(e event) bool { return e.id == 1 && e.end }); e.get("grpc-status") != test.status {
				t.Errorf("the caller got %v", e)
			}
			if len(pair.sent) != test.tries {
				t.Errorf("%d tries, want %d", len(pair.sent), test.tries)
			}
			pair.idle(t)
		})
	}
}

// hedgedPair is a gateway that hedges RPCs to two scripted backends, taken in turn.
func hedgedPair(t *testing.T, policy, backend string, addrs ...string) *node {
	t.Helper()
	const inTurn = "loadBalancing: {policy: RoundRobin}\n"
	return startTreated(t, Config{}, policy, schemaOf(t, hedgedProto), backendWith("a", inTurn+backend, addrs...), routeTo("r", "a"))
}

// playTo passes on what scripted backends are asked.
func playTo(t *testing.T, scripts ...*scripted) (sent chan played) {
	t.Helper()
	sent = make(chan played, 100)
	for _, s := range scripts {
		s.play(t, func(q played) { sent <- q })
	}
	return sent
}

// at is the endpoint's address.
func (q played) at() string { return q.p.nc.LocalAddr().String() }

// TestHedgeBlamesWhoFailed, and the caller hears nothing of the other.
func TestHedgeBlamesWhoFailed(t *testing.T) {
	t.Parallel()
	for _, failing := range []int{0, 1} {
		t.Run(fmt.Sprint("try ", failing), func(t *testing.T) {
			t.Parallel()
			first, second := startScript(t, manners{}), startScript(t, manners{})
			g := hedgedPair(t, hedgedAfter, "outlierDetection: {consecutiveErrors: 1}\n", first.addr, second.addr)
			sent := playTo(t, first, second)
			client := connect(t, g.address(), manners{})
			client.request(1, "/shop.Cart/Get")
			client.data(1, message(nil), true)
			tries := []played{<-sent, <-sent}
			well, ill := tries[1-failing], tries[failing]
			well.p.headers(well.id, false, append(answerHead, "x-well", "1")...)
			paused(50 * time.Millisecond) // until that has been heard
			ill.p.reset(ill.id, http2.ErrCodeInternal)
			if e := client.awaitHeaders(1); e.get("grpc-status") != "13" || e.get("x-well") != "" || !e.end {
				t.Errorf("the caller got %v", e)
			}
			well.p.awaitReset(well.id)
			states := func() map[string]string {
				m := make(map[string]string)
				for _, e := range g.Endpoints("default/a") {
					m[e.Address] = e.State
				}
				return m
			}
			await(t, "the blame", func() bool { return slices.Contains(slices.Collect(maps.Values(states())), "ejected") })
			if got := states(); got[ill.at()] != "ejected" || got[well.at()] != "healthy" {
				t.Errorf("%v, and %s has failed", got, ill.at())
			}
			await(t, "nothing to be left", func() bool { return g.metric(t, "sluice_endpoint_active") == 0 })
		})
	}
}

// TestHedgeMovesElsewhere: what an endpoint refuses does not go to the one that is at work.
func TestHedgeMovesElsewhere(t *testing.T) {
	t.Parallel()
	first, second := startScript(t, manners{}), startScript(t, manners{})
	g := hedgedPair(t, hedgedAfter, "", first.addr, second.addr)
	sent := playTo(t, first, second)
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get")
	client.data(1, message(nil), true)
	one, other := <-sent, <-sent
	other.p.reset(other.id, http2.ErrCodeRefusedStream)
	moved := <-sent
	if moved.at() == one.at() {
		t.Error("two tries are at one endpoint")
	}
	moved.p.reply(moved.id, nil)
	if e := client.await("end", func(e event) bool { return e.id == 1 && e.end }); e.get("grpc-status") != "0" {
		t.Errorf("the caller got %v", e)
	}
	one.p.awaitReset(one.id)
}

// TestHedgePaysForWhatIsSent: a try that no endpoint takes leaves the budget as it was.
func TestHedgePaysForWhatIsSent(t *testing.T) {
	t.Parallel()
	const policy = hedgedAfter + "\nretryConstraint: {budget: {percent: 0}, minRetryRate: {count: 1, interval: 1h}}"
	first, second := startScript(t, manners{}), startScript(t, manners{})
	sent := playTo(t, first, second)
	g := hedgedPair(t, policy, "", first.addr, deadAddress())
	client := connect(t, g.address(), manners{})
	for id := uint32(1); id < 10; id += 2 {
		client.request(id, "/shop.Cart/Get")
		client.data(id, message(nil), true)
		q := <-sent
		paused(100 * time.Millisecond)
		q.p.reply(q.id, nil)
		client.await("end", func(e event) bool { return e.id == id && e.end })
	}
	if got := g.metric(t, "sluice_retry_total"); got == 0 {
		t.Error("nothing was to be hedged: nothing was tested")
	}
	if err := g.Apply(treatedSet(t, policy, schemaOf(t, hedgedProto), backendAt("a", first.addr, second.addr), routeTo("r", "a"))); err != nil {
		t.Fatal(err)
	}
	client.request(11, "/shop.Cart/Get")
	client.data(11, message(nil), true)
	one, other := <-sent, <-sent
	if one.at() == other.at() || other.get("grpc-previous-rpc-attempts") != "1" {
		t.Errorf("the second try is %v at %s, the first at %s", other, other.at(), one.at())
	}
	other.p.reply(other.id, nil)
	client.await("end", func(e event) bool { return e.id == 11 && e.end })
	client.request(13, "/shop.Cart/Get")
	client.data(13, message(nil), true)
	q := <-sent
	paused(100 * time.Millisecond)
	q.p.reply(q.id, nil)
	client.await("end", func(e event) bool { return e.id == 13 && e.end })
	if len(sent) != 0 {
		t.Error("more was sent than the budget has")
	}
}

// TestHedgeWaitsAsOne: an RPC of which two tries wait for connections counts among those
// that wait until neither does.
func TestHedgeWaitsAsOne(t *testing.T) {
	t.Parallel()
	var addrs []string
	conns := make(chan net.Conn, 9)
	var mutes []net.Listener
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				t.Cleanup(func() { nc.Close() })
				conns <- nc
			}
		}()
		mutes, addrs = append(mutes, l), append(addrs, l.Addr().String())
	}
	g := hedgedPair(t, hedgedAfter, "limits: {maxPending: 1}\n", addrs...)
	client := connect(t, g.address(), manners{})
	client.request(1, "/shop.Cart/Get", "grpc-timeout", "20S")
	client.data(1, message(nil), true)
	await(t, "two tries to wait", func() bool { return g.metric(t, "sluice_endpoint_active") == 2 })
	gone := <-conns
	for _, l := range mutes {
		if l.Addr().String() == gone.LocalAddr().String() {
			l.Close()
		}
	}
	gone.Close()
	await(t, "one of them to fail", func() bool { return g.metric(t, "sluice_endpoint_active") == 1 })
	client.request(3, "/shop.Cart/Add", "grpc-timeout", "1S")
	client.data(3, message(nil), true)
	if e := client.awaitHeaders(3); e.get("grpc-status") != "14" {
		t.Errorf("another got %v beside one that waits", e)
	}
	client.reset(1, http2.ErrCodeCancel)
	await(t, "nothing to be left", func() bool { return g.metric(t, "sluice_endpoint_active") == 0 })
	client.request(5, "/shop.Cart/Add", "grpc-timeout", "100m")
	client.data(5, message(nil), true)
	if e := client.awaitHeaders(5); e.get("grpc-status") != "4" {
		t.Errorf("with none that waits another got %v", e)
	}
}

// TestHedgeIsForMethodsThatMayBeCalledTwice, and that answer with one message.
func TestHedgeIsForMethodsThatMayBeCalledTwice(t *testing.T) {
	t.Parallel()
	pair := playPair(t, hedgedAfter, []string{schemaOf(t, hedgedProto)}, func(q played, before int) {
		paused(100 * time.Millisecond)
		q.p.reply(q.id, nil)
	})
	for i, method := range []string{"Add", "Watch", "Unknown"} {
		id := uint32(2*i + 1)
		pair.client.request(id, "/shop.Cart/"+method)
		pair.client.data(id, message(nil), true)
		pair.client.await("end", func(e event) bool { return e.id == id && e.end })
		if len(pair.sent) != 1 {
			t.Errorf("%s had %d tries", method, len(pair.sent))
		}
		for len(pair.sent) > 0 {
			<-pair.sent
		}
	}
	pair.idle(t)
}

// TestHedgeCutsTheTail: one slow endpoint of three is not waited for.
func TestHedgeCutsTheTail(t *testing.T) {
	t.Parallel()
	var addrs []string
	var slow atomic.Int32
	for i := range 3 {
		addrs = append(addrs, startAnswering(t, map[string]answer{"Get": func(b *backend, st grpc.ServerStream) error {
			if i == 0 {
				slow.Add(1)
				return hang(b, st)
			}
			return echo(b, st)
		}}).addr)
	}
	g := startTreated(t, Config{}, "hedging: {attempts: 2, delay: 20ms}"+unlimited, schemaOf(t, hedgedProto), backendWith("a", "loadBalancing: {policy: RoundRobin}", addrs...), routeTo("r", "a"))
	cc := dial(t, g.address())
	each(60, 6, func(i int) {
		m := pattern(i, 300)
		if got := mustCall(t, cc, "/shop.Cart/Get", m); !bytes.Equal(got, m) {
			t.Errorf("RPC %d got another's answer", i)
		}
	})
	if slow.Load() == 0 {
		t.Error("the slow endpoint was not asked: nothing was tested")
	}
	await(t, "nothing to be left", func() bool {
		return g.metric(t, "sluice_endpoint_active") == 0 && g.metric(t, "sluice_rpc_kept_bytes") == 0
	})
}
