package gateway

import (
	"bytes"
	"fmt"
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
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			pair := playPair(t, "hedging: {attempts: 1, delay: 10s}", []string{schemaOf(t, hedgedProto)}, test.answer)
			pair.client.request(1, "/shop.Cart/Get")
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
