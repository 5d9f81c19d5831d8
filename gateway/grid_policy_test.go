package gateway

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/gateway/wire"
)

// tried is a backend of the grid whose method Try answers by a function.
type tried struct {
	addr  string
	tries atomic.Int64
}

// startTried tells the function whether the RPC was sent before; nil answers well.
func startTried(t testing.TB, try func(st grpc.ServerStream, again bool) error) *tried {
	t.Helper()
	b := new(tried)
	b.addr = startAnswering(t, map[string]answer{"Try": func(_ *backend, st grpc.ServerStream) error {
		b.tries.Add(1)
		var m []byte
		if err := st.RecvMsg(&m); err != nil {
			return err
		}
		md, _ := metadata.FromIncomingContext(st.Context())
		if try != nil {
			if err := try(st, len(md.Get("grpc-previous-rpc-attempts")) > 0); err != nil {
				return err
			}
		}
		m = told("done")
		return st.SendMsg(&m)
	}}).addr
	return b
}

var errNotNow = status.Error(codes.Unavailable, "not now")

// TestGridSendsAgain until it goes well, whoever calls.
func TestGridSendsAgain(t *testing.T) {
	t.Parallel()
	failOnce := func(st grpc.ServerStream, again bool) error {
		if again {
			return nil
		}
		st.SetHeader(metadata.Pairs("x-try", "first")) // the status comes in trailers behind it
		return errNotNow
	}
	a, b := startTried(t, failOnce), startTried(t, failOnce)
	g := startTreated(t, Config{}, onceMore+unlimited, gridSchema(t), backendWith("a", "outlierDetection: {disabled: true}", a.addr, b.addr), routeTo("r", "a"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		before := a.tries.Load() + b.tries.Load()
		for range 5 {
			if end := c.must(t, gridAsk{method: "Try"}); end.code != wire.OK || end.name != "done" {
				t.Errorf("got %v", end)
			}
		}
		if got := a.tries.Load() + b.tries.Load() - before; got != 10 {
			t.Errorf("5 RPCs were %d tries, want 10", got)
		}
	})
	if a.tries.Load() != b.tries.Load() {
		t.Errorf("%d tries at one endpoint and %d at the other: each RPC was to be at both", a.tries.Load(), b.tries.Load())
	}
}

// TestGridSendsAgainByDefault what a schema says may be sent twice.
func TestGridSendsAgainByDefault(t *testing.T) {
	t.Parallel()
	failOnce := func(_ grpc.ServerStream, again bool) error {
		if again {
			return nil
		}
		return errNotNow
	}
	a, b := startTried(t, failOnce), startTried(t, failOnce)
	g := startTreated(t, Config{}, strings.TrimSpace(unlimited), gridSchema(t), backendWith("a", "outlierDetection: {disabled: true}", a.addr, b.addr), routeTo("r", "a"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		if end := c.must(t, gridAsk{method: "Try"}); end.code != wire.OK || end.name != "done" {
			t.Errorf("got %v", end)
		}
	})
}

// TestGridGivesUp what goes on failing: with the backend's last word, after as many tries
// as there may be; after one when the budget is spent, or the backend wants no more.
func TestGridGivesUp(t *testing.T) {
	t.Parallel()
	const retry = "retry: {attempts: 2, codes: [UNAVAILABLE], backoff: {base: 1ms, max: 2ms}}"
	for _, test := range []struct {
		name, policy string
		pushback     string
		tries        int64
	}{
		{"exhausted", retry + unlimited, "", 3},
		{"budget", retry + "\nretryConstraint: {budget: {percent: 1}, minRetryRate: {count: 1, interval: 1h}}", "", 1},
		{"pushback", retry + unlimited, "-1", 1},
		{"pushback that is no number", retry + unlimited, "never", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := startTried(t, func(st grpc.ServerStream, _ bool) error {
				if test.pushback != "" {
					st.SetTrailer(metadata.Pairs("grpc-retry-pushback-ms", test.pushback))
				}
				return errNotNow
			})
			g := startTreated(t, Config{}, test.policy, gridSchema(t), backendWith("a", "outlierDetection: {disabled: true}", b.addr), routeTo("r", "a"))
			if test.name == "budget" { // the one that there is
				for range 3 {
					gridCallers(t, g)[0].must(t, gridAsk{method: "Try"})
				}
			}
			onGrid(t, g, func(t *testing.T, c gridCaller) {
				before := b.tries.Load()
				if end := c.must(t, gridAsk{method: "Try"}); end.code != wire.Unavailable || end.message != "not now" {
					t.Errorf("got %v", end)
				}
				if got := b.tries.Load() - before; got != test.tries {
					t.Errorf("%d tries, want %d", got, test.tries)
				}
			})
		})
	}
}

// TestGridBoundsEachTry: one that hangs is followed by another.
func TestGridBoundsEachTry(t *testing.T) {
	t.Parallel()
	hangOnce := func(st grpc.ServerStream, again bool) error {
		if !again {
			<-st.Context().Done()
			return st.Context().Err()
		}
		return nil
	}
	a, b := startTried(t, hangOnce), startTried(t, hangOnce)
	g := startTreated(t, Config{}, "retry: {attempts: 4, codes: [UNAVAILABLE], perTryTimeout: 100ms}"+unlimited, gridSchema(t),
		backendWith("a", "outlierDetection: {disabled: true}", a.addr, b.addr), routeTo("r", "a"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		if end := c.must(t, gridAsk{method: "Try"}); end.code != wire.OK || end.name != "done" {
			t.Errorf("got %v", end)
		}
	})
}

// TestGridEndsAtTheRulesDeadline where the caller has named none, or a later one.
func TestGridEndsAtTheRulesDeadline(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	g := startTreated(t, Config{}, "timeouts: {request: 150ms, default: 100ms}", gridSchema(t), backendAt("a", b.addr), routeTo("r", "a"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		for _, own := range []time.Duration{0, 10 * time.Second} {
			begin := time.Now()
			end := c.must(t, gridAsk{method: "Hang", timeout: own})
			if took := time.Since(begin); end.code != wire.DeadlineExceeded || took < 95*time.Millisecond || took > 8*time.Second {
				t.Errorf("own deadline %v: %v after %v", own, end, took)
			}
		}
	})
	await(t, "the backend to be told", func() bool { return b.open.Load() == 0 })
}

// TestGridLimitsRates: what is over a limit says so, and when to come again.
func TestGridLimitsRates(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	g := startTreated(t, Config{}, "rateLimits: [{requests: 1, interval: 1h}]", gridSchema(t), backendAt("a", b.addr), routeTo("r", "a"))
	gridCallers(t, g)[0].must(t, gridAsk{method: "Name"})
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		if end := c.must(t, gridAsk{method: "Name"}); end.code != wire.ResourceExhausted || !strings.HasPrefix(end.message, "sluice: the route's rate limit is reached") {
			t.Errorf("got %v", end)
		}
	})
}

// TestGridTurnsAwayWhatABackendMayNotHave: it has as many RPCs as it may.
func TestGridTurnsAwayWhatABackendMayNotHave(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	g := startGateway(t, Config{}, gridSchema(t), backendWith("a", "limits: {maxRequests: 1}", b.addr), routeTo("r", "a"))
	ctx, cancel := context.WithCancel(shortly(t))
	st := stream(t, ctx, dial(t, g.address()), "/grid.Grid/Hang")
	st.CloseSend()
	await(t, "the one that there may be", func() bool { return b.open.Load() == 1 })
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		if end := c.must(t, gridAsk{method: "Name"}); end.code != wire.ResourceExhausted || !strings.HasPrefix(end.message, "sluice: the backend has as many RPCs as it may") {
			t.Errorf("got %v", end)
		}
	})
	cancel()
	await(t, "it to end", func() bool { return b.open.Load() == 0 && g.metric(t, "sluice_rpc_open") == 0 })
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		if end := c.must(t, gridAsk{method: "Name"}); end.code != wire.OK {
			t.Errorf("got %v", end)
		}
	})
}

// TestGridEjects an endpoint that fails, whoever hears of it; and what tells of the request
// alone ejects nobody.
func TestGridEjects(t *testing.T) {
	t.Parallel()
	fails := startTried(t, func(grpc.ServerStream, bool) error { return status.Error(codes.Internal, "broken") })
	well := startTried(t, nil)
	picky := startTried(t, func(grpc.ServerStream, bool) error { return status.Error(codes.NotFound, "no such cart") })
	const once = "loadBalancing: {policy: RoundRobin}\noutlierDetection: {consecutiveErrors: 1, ejectFor: 1h, maxEjectFor: 1h}"
	resources := []string{gridSchema(t), routeTo("r", "a")}
	g := startGateway(t, Config{}, resources...)
	for _, c := range gridCallers(t, g) {
		t.Run(c.name, func(t *testing.T) {
			// A backend of another name each time: nobody has been ejected yet.
			name := strings.ToLower(strings.NewReplacer(" ", "-", "/", "-", "'", "").Replace(c.name))
			g.apply(t, gridSchema(t), backendWith(name, once, fails.addr, well.addr), routeTo("r", name))
			failed := 0
			for range 10 {
				if end := c.must(t, gridAsk{method: "Try"}); end.code != wire.OK {
					failed++
				}
			}
			if failed != 1 {
				t.Errorf("%d RPCs of 10 failed, want the one that ejected the endpoint", failed)
			}
			g.apply(t, gridSchema(t), backendWith(name+"-picky", once, picky.addr, well.addr), routeTo("r", name+"-picky"))
			found := 0
			for range 10 {
				if end := c.must(t, gridAsk{method: "Try"}); end.code == wire.OK {
					found++
				}
			}
			if found != 5 {
				t.Errorf("%d RPCs of 10 were at the endpoint that finds something, want 5", found)
			}
		})
	}
}
